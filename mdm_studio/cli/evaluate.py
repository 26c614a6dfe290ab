"""``mdm-studio evaluate``: compare predicted masks with true ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdm_studio.cli.common import JsonFlag, parse_unlabelled, print_json, say

if TYPE_CHECKING:
    from mdm_studio.services.evaluation import Evaluation


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted masks.")],
    truth: Annotated[Path, typer.Argument(help="Folder of true masks of the same names.")],
    metrics: Annotated[str, typer.Option(help="Some of dice,iou,miou,aji,object_dice.")] = "dice,iou,miou",
    instances: Annotated[bool, typer.Option("--instances", help="The truth numbers its objects; 0 is the background.")] = False,
    foreground: Annotated[
        int | None, typer.Option(help="With --instances: the class of the masks that the objects are.", show_default=False)
    ] = None,
    unlabelled: Annotated[str, typer.Option(help="Value of the truth that is left out, or none.")] = "0",
    ignore: Annotated[int | None, typer.Option(help="Another value that is left out.", show_default=False)] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the scores of each image here.", show_default=False)] = None,
    json_: JsonFlag = False,
) -> None:
    """Compare predicted masks with true ones: per class and per image, mean and spread.

    Objects are the connected components of the foreground class. A score that is undefined in an image is left out.

    Example: `mdm-studio evaluate masks/ truth/ --instances --foreground 2 --metrics dice,iou,aji`
    """
    from mdm_studio.io.tables import write_rows
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
    found = evaluate_folder(request)
    if found.missing:
        say(f"{len(found.missing)} images of the truth have no prediction, for example {found.missing[0]}")
    if csv is not None:
        write_rows(csv, found.rows)
    if json_:
        scores = [vars(score) for score in found.scores]
        print_json({"scores": scores, "images": found.rows, "missing": found.missing})
    else:
        _show(found)


def _show(found: Evaluation) -> None:
    from rich.console import Console
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
    Console().print(table)
