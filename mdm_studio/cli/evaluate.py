"""``mdm-studio evaluate``: compare predicted masks, or what a classifier predicts, with true masks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdm_studio.cli.common import Device, JsonFlag, parse_numbers, parse_unlabelled, print_json, progress_bar, say
from mdm_studio.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from mdm_studio.services.evaluation import Evaluation
    from mdm_studio.services.robustness import Robustness, RobustnessRequest

_CLASSIFIER = ".mdm"


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted masks, or a classifier FILE.mdm with --images.")],
    truth: Annotated[Path, typer.Argument(help="Folder of true masks of the same names.")],
    metrics: Annotated[str, typer.Option(help="Some of dice,iou,miou,aji,object_dice.")] = "dice,iou,miou",
    instances: Annotated[bool, typer.Option("--instances", help="The truth numbers its objects; 0 is the background.")] = False,
    foreground: Annotated[
        int | None, typer.Option(help="With --instances: the class of the masks that the objects are.", show_default=False)
    ] = None,
    unlabelled: Annotated[str, typer.Option(help="Value of the truth that is left out, or none.")] = "0",
    ignore: Annotated[int | None, typer.Option(help="Another value that is left out.", show_default=False)] = None,
    images: Annotated[
        list[str] | None,
        typer.Option("--images", help="Of FILE.mdm: a folder, a glob in quotes or a file; repeatable.", show_default=False),
    ] = None,
    corruptions: Annotated[
        str,
        typer.Option(help="Of FILE.mdm: spoil the images first. Names, or all, imagenet-c, mdm, ddpm-seg.", show_default=False),
    ] = "",
    severities: Annotated[str, typer.Option(help="Of the corruptions: 1 (weak) to 5 (strong).")] = "1,3,5",
    seed: Annotated[int, typer.Option(min=0, help="Of the corruptions; the same seed spoils an image in the same way.")] = 0,
    smooth: Annotated[
        int | None, typer.Option(min=0, help="Of FILE.mdm: smoothing in pixels. Default: the classifier's.", show_default=False)
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Of FILE.mdm: where its backbone is looked for, too.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the scores of each condition here, as CSV.", show_default=False)
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the scores of each image here.", show_default=False)] = None,
    device: Device = "auto",
    json_: JsonFlag = False,
) -> None:
    """Compare predicted masks with true ones: per class and per image, mean and spread.

    Objects are the connected components of the foreground class. A score that is undefined in an image is left out.
    Given a classifier, its predictions for --images are compared, also for images that are spoilt by Hendrycks' corruptions.

    Example: `mdm-studio evaluate masks/ truth/ --instances --foreground 2 --metrics dice,iou,aji`

    Example: `mdm-studio evaluate cells.mdm truth/ --images images/ --corruptions imagenet-c --out robust.csv`
    """
    from mdm_studio.services.evaluation import EvaluationRequest, evaluate_folder

    request = EvaluationRequest(
        predictions,
        truth,
        metrics=tuple(name.strip() for name in metrics.split(",") if name.strip()),
        objects=instances,
        foreground=foreground,
        unlabelled=parse_unlabelled(unlabelled),
        ignore=ignore,
    )
    if predictions.suffix.lower() == _CLASSIFIER:
        from mdm_studio.engine.image_corruptions import chosen
        from mdm_studio.services.robustness import RobustnessRequest

        if not images:
            raise UsageError(f"{predictions} is a classifier: say with --images which images it shall predict")
        names = chosen(corruptions) if corruptions else ()
        levels = parse_numbers(severities, "--severities") or ()
        asked = RobustnessRequest(tuple(images), request, names, levels, seed, smooth, backbone, device)
        _classifier(asked, out, csv, json_)
        return
    given = {"--images": images, "--corruptions": corruptions, "--smooth": smooth, "--backbone": backbone, "--out": out}
    if wrong := [option for option, value in given.items() if value not in (None, "")]:
        raise UsageError(f"{', '.join(wrong)} is for a classifier FILE.mdm, and {predictions} is not one; leave it out")
    _report(evaluate_folder(request), csv, json_)


def _report(found: Evaluation, csv: Path | None, json_: bool, differs: Mapping[str, Path] | None = None) -> None:
    from mdm_studio.io.tables import write_rows

    if found.missing:
        say(f"{len(found.missing)} images of the truth have no prediction, for example {found.missing[0]}")
    if csv is not None:
        write_rows(csv, found.rows)
    if json_:
        scores = [vars(score) for score in found.scores]
        more = {} if differs is None else {"differs": dict(differs)}
        print_json({"scores": scores, "images": found.rows, "missing": found.missing, **more})
    else:
        _print(_scores(found))


def _classifier(request: RobustnessRequest, out: Path | None, csv: Path | None, json_: bool) -> None:
    """Evaluate a classifier; without corruptions the report is that of a folder."""
    from mdm_studio.io.tables import write_rows

    found = _run(request)
    for words, path in found.differs.items():
        say(f"warning: {path.name} differs from the images that the classifier was fitted on: {words}")
    if out is not None:
        write_rows(out, found.rows())
    if not request.corruptions:
        _report(found.clean, csv, json_, found.differs)
        return
    for reason in found.left_out.values():
        say(f"left out: {reason}")
    if found.clean.missing:
        say(f"{len(found.clean.missing)} images of the truth are not among --images, for example {found.clean.missing[0]}")
    of_images = [
        {"corruption": each.corruption or "clean", "severity": each.severity} | row
        for each in found.conditions
        for row in each.evaluation.rows
    ]
    if csv is not None:
        write_rows(csv, of_images)
    if json_:
        print_json(
            {
                "scores": found.rows(),
                "images": of_images,
                "missing": found.clean.missing,
                "left_out": dict(found.left_out),
                "differs": found.differs,
            }
        )
        return
    for metric in request.scoring.metrics:
        _print(_conditions(found, metric))


def _run(request: RobustnessRequest) -> Robustness:
    from mdm_studio.services.robustness import evaluate_classifier

    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=1.0, note="")
        steps = evaluate_classifier(request)
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                found: Robustness = end.value
                return found
            bar.update(task, completed=step.done, note=step.note)


def _conditions(found: Robustness, metric: str) -> Table:
    """One metric: a row a corruption, a column a severity, each with what is left of the score of clean images."""
    from rich.table import Table

    from mdm_studio.services.robustness import overall

    clean = found.value(metric)
    levels = [f"severity {each}" for each in found.severities]
    table = Table("corruption", *levels, "mean", title=f"{metric}, clean {clean:.4f}")
    for name in found.names:
        values = [found.value(metric, name, severity) for severity in found.severities]
        table.add_row(name, *(_cell(value, clean) for value in [*values, _mean(values)]))
    table.add_section()
    columns = [[found.value(metric, name, severity) for name in found.names] for severity in found.severities]
    everything = [overall(each.evaluation.scores, metric) for each in found.conditions[1:]]
    table.add_row("mean", *(_cell(_mean(values), clean) for values in [*columns, everything]))
    return table


def _cell(value: float, clean: float) -> str:
    return f"{value:.4f} ({100 * value / clean:.0f} %)" if clean else f"{value:.4f}"


def _mean(values: list[float]) -> float:
    defined = [value for value in values if value == value]  # not-a-number is undefined
    return sum(defined) / len(defined) if defined else float("nan")


def _scores(found: Evaluation) -> Table:
    from rich.table import Table

    table = Table("metric", "class", "mean", "std", "images", "pooled")
    for score in found.scores:
        table.add_row(
            score.metric,
            "" if score.class_value is None else str(score.class_value),
            f"{score.mean:.4f}",
            f"{score.std:.4f}",
            str(score.images),
            "" if score.pooled is None else f"{score.pooled:.4f}",
        )
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    Console().print(table)
