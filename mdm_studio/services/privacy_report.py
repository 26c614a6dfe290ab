"""The privacy report: ``privacy.md`` in plain words, and ``privacy.json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdm_studio.engine.membership import FALSE_ALARMS, Attack, Nearness
from mdm_studio.io.atomic import make_folder, write_json, write_text
from mdm_studio.services.privacy_pictures import WHAT, picture_name, write_pictures

if TYPE_CHECKING:
    from mdm_studio.services.privacy import Findings, Resembling, Restoring

_CHANCE = 0.05  # of a test to stand out when there is nothing
_ALIKE = 0.95  # correlation of near duplicates, or of pictures with little in them
_FEW = 30  # images of a kind; with fewer the interval is wide and too narrow at once


def write_report(folder: Path, findings: Findings) -> None:
    """Write the pictures, the numbers, and at last the words."""
    make_folder(folder)
    write_pictures(folder, findings)
    write_json(folder / "privacy.json", _numbers(findings))
    write_text(folder / "privacy.md", report(findings))


def verdict(found: Attack) -> str:
    """What an attack's figures mean, in a sentence; of few images the interval alone would accuse too easily."""
    if found.low > 0.5 and found.p < _CHANCE:
        strength = "slightly better than guessing" if found.auc < 0.6 else "clearly" if found.auc < 0.8 else "almost always"
        return f"**Training images can be told from others, {strength}.**"
    if found.high < 0.5 and found.p < _CHANCE:
        return "**Held-out images are restored better than training images: the two kinds of images differ; choose others.**"
    return f"**No leak was found by this attack**; one up to an area of {found.high:.2f} would not have been noticed."


def resemblance_verdict(found: Nearness) -> str:
    """What a search's figures mean, in a sentence."""
    if found.p < _CHANCE:
        return "**more like the training images than chance explains**"
    return "no more like the training images than like held-out ones, as far as so few can tell"


def report(findings: Findings) -> str:
    """The report in Markdown."""
    trained, held_out = (len(names) for names in findings.names)
    shown = [kind for kind in WHAT if kind in findings.pairs and kind != "held-out"]
    parts = [
        f"# What {findings.backbone} reveals of its training images",
        _summary(findings),
        f"| | |\n| --- | --- |\n| backbone | {findings.backbone}, recipe `{findings.recipe['name']}`, digest "
        f"`{findings.digest}` |\n| images | {trained} that trained it, {held_out} held out |\n"
        f"| crops | {findings.settings['crops']} an image, {findings.side} x {findings.side} pixels |\n"
        f"| seed | {findings.settings['seed']} |",
        "\n".join(f"- {note}" for note in findings.notes),
        "## 1. Does it restore training images better than others?",
        _restoring_words(findings.restoring),
        "![distributions](distributions.png)",
        "![restored images, best first](restored.png)",
        "## 2. Do its pictures resemble training images?",
        _resembling_words(findings.resembling),
        *(f"![{WHAT[kind]}, worst first]({picture_name(kind)})" for kind in shown),
        "## What this proves, and what it does not",
        _limits(findings),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def summary_lines(findings: Findings) -> list[str]:
    """The verdicts, a line each."""
    lines = [f"restoring ({each.words}): AUC {each.attack.auc:.2f}. {verdict(each.attack)}" for each in findings.restoring]
    lines += [
        f"resembling: {WHAT[each.kind]} are {resemblance_verdict(each.nearness)}"
        for each in findings.resembling
        if each.kind != "held-out"
    ]
    return [line.replace("**", "") for line in lines]


def summary(findings: Findings) -> dict[str, Any]:
    """The figures, for programs."""
    return {
        "backbone": findings.backbone,
        "digest": findings.digest,
        "images": [len(names) for names in findings.names],
        "restoring": [{"hidden": each.words, **dataclasses.asdict(each.attack)} for each in findings.restoring],
        "resembling": [
            {"pictures": each.kind, "beyond": each.beyond, **dataclasses.asdict(each.nearness)} for each in findings.resembling
        ],
        "notes": findings.notes,
    }


def _summary(findings: Findings) -> str:
    lines = [f"- Restoring ({each.words}): {verdict(each.attack)}" for each in findings.restoring]
    lines += [
        f"- Resembling: {WHAT[each.kind]} are {resemblance_verdict(each.nearness)}."
        for each in findings.resembling
        if each.kind != "held-out"
    ]
    return "\n".join(lines)


def _restoring_words(restoring: Sequence[Restoring]) -> str:
    rows = [
        f"| {each.words} | {np.median(each.errors[0]):.3f} | {np.median(each.errors[1]):.3f} | {each.ssim[0]:.3f} | "
        f"{each.ssim[1]:.3f} | **{each.attack.auc:.2f}** ({each.attack.low:.2f} to {each.attack.high:.2f}) | "
        f"{each.attack.p:.2g} | {each.attack.found:.0%} |"
        for each in restoring
    ]
    text = f"""Parts of every image were hidden in the way the backbone was trained on, and the backbone restored them.
The error is that of the hidden places alone, as a share of their variance: 0 is perfect, and 1 is what a guess of
their mean colour gets. An image of low contrast is easier or harder for everybody; so the attack compares its error
with the error that is usual at its contrast.

| hidden | error, training (median) | error, held out | SSIM, training (median) | SSIM, held out | AUC | p | found |
| --- | --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

*AUC*: somebody who has the checkpoint, one training and one held-out image picks the training image so often, by the
smaller of these; 0.5 is guessing, 1 is certainty; in brackets a 95 % bootstrap interval over images. *p*: Mann-Whitney
test that both kinds of errors are alike. *Found*: share of the training images that are recognised if
{FALSE_ALARMS:.0%} of the others are wrongly accused. *SSIM*: structural similarity of restored and true places.
"""
    biased = [each.difficulty for each in restoring if each.difficulty.p < _CHANCE]
    if biased:
        text += (
            "\n**Caution**: the contrast of the images alone, which knows nothing of the backbone, tells the two kinds apart\n"
            f"(AUC {biased[0].auc:.2f}, p {biased[0].p:.2g}). They differ in more than having trained it, and the figures\n"
            "above may show that difference. Choose held-out images at random from the same source.\n"
        )
    return text


def _resembling_words(resembling: Sequence[Resembling]) -> str:
    rows = [
        f"| {WHAT[each.kind]} ({each.nearness.pictures}) | {np.median(each.correlation[0]):.3f} | "
        f"{np.median(each.correlation[1]):.3f} | **{each.nearness.share:.0%}** ({each.nearness.low:.0%} to "
        f"{each.nearness.high:.0%}) | {each.nearness.p:.2g} | {'' if each.kind == 'held-out' else each.beyond} |"
        for each in resembling
    ]
    held_out = next(each for each in resembling if each.kind == "held-out")
    highest, chance = max(held_out.correlation[0]), held_out.nearness.pictures + 1
    return f"""Every picture was searched in {held_out.nearness.images} training and as many held-out images, at every place and
mirrored, by the correlation of grey values (1: the same but for brightness and contrast), at a coarse resolution.

| pictures | nearest training image: correlation (median) | nearest held-out image | training is nearer | p | beyond |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

*Training is nearer*: half of the time if training left no trace; in brackets a 95 % interval. *p*: how often a random
division of all these images gives as large a share. *Beyond*: pictures that are more like a training image than every
one of the held-out images is ({highest:.3f}); chance alone gives about one in {chance}. Look at them below. The last row
is the yardstick: real images that the backbone has never seen.
"""


def _limits(findings: Findings) -> str:
    few = min(len(names) for names in findings.names)
    tests = len(findings.restoring) + len([each for each in findings.resembling if each.kind != "held-out"])
    digests = (
        "- The card of this backbone lists digests of its training files, so that this report knows them. A digest shows\n"
        "  nothing of an image, but **whoever has one of the files can see that it trained the backbone**. If that is secret,\n"
        "  remove `image_digests` from its `backbone.json` before sharing it.\n"
        if findings.lists_digests
        else ""
    )
    small = f"- **{few} images of a kind are few**: only strong effects are seen.\n" if few < _FEW else ""
    close = next(each for each in findings.resembling if each.kind == "held-out").correlation[0]
    alike = sum(value > _ALIKE for value in close)
    doubles = f" Here {alike} of {len(close)} held-out images correlate above {_ALIKE} with a training image." if alike else ""
    return f"""It proves what it finds: where the interval of the AUC lies above 0.5 and p is small, somebody with the
checkpoint can tell images that trained it from other images of that kind, at least that well.

It does not prove that nothing is revealed where it finds nothing:

- **Stronger attacks exist**: with several checkpoints of the same training, with networks trained on like images for
  comparison (LiRA, Carlini et al. 2022), with gradients, or with thousands of pictures made from noise (Carlini et al.
  2023).
- It looks at whole images on average. A single unusual image, or a detail of one (a label, a name burnt in), can be
  revealed where the rest is not: look at the pictures, and remove such things before training.
- **Near duplicates** count as strangers: neighbouring fields or slices of one specimen on both sides make training
  images look less known than they are and the intervals too narrow. Divide by specimen or patient, not by image.{doubles}
- Held-out images must come from the same source. If they are of another microscope, day or patient group, a difference
  between the kinds is no leak.
- Somebody who has an image of yours already learns from an AUC above 0.5 that it trained the backbone: no more.
  Pictures that copy training images (section 2) would be worse.
- {tests} tests were made here; of such tests one in twenty stands out by chance.
{small}{digests}
**This folder shows training images. Do not share it along with the checkpoint.**
"""


def _numbers(findings: Findings) -> dict[str, Any]:
    values = {
        each.name: getattr(findings, each.name)
        for each in dataclasses.fields(findings)
        if each.name not in ("examples", "pairs", "names", "restoring", "resembling")
    }
    return {
        "version": 1,
        **values,
        "images": {"trained": findings.names[0], "held_out": findings.names[1]},
        "restoring": [dataclasses.asdict(each) for each in findings.restoring],
        "resembling": [dataclasses.asdict(each) for each in findings.resembling],
    }
