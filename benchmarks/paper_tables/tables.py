"""Which methods stand in which table, what the papers report there, and how their set-up differs from ours.

A published figure stands here only if we have it from the papers' own tables; "not quoted" is said of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paper_tables.methods import UNTRAINED
from paper_tables.protocol import ALL, ONE, TEN_PERCENT

PAPERS = {
    "mdm": "Pan, Chen and Shi 2023",
    "ddpm-seg": "Baranchuk et al. 2022",
    "ddep": "Brempong et al. 2022",
    "maskdm": "Lei et al. 2023",
}

_MDM_SETUP = "192-channel ADM UNet (311 M), {steps} steps of 128 crops of 256² on a V100, blocks 8-12 at t = 50"
_GLAS, _MONUSEG = _MDM_SETUP.format(steps="10,000"), _MDM_SETUP.format(steps="5,000")
_HALVES = {"glas": "official halves (85, 80 images)", "monuseg": "official halves (30, 14 images)"}


@dataclass(frozen=True)
class Row:
    """A line of a table: a method of ours, or (without `method`) one that is quoted only."""

    title: str = ""
    method: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a paper.

    Attributes
    ----------
    kind : str
        How it is measured: "dense" (heads on dense labels), "robustness", "ddpm-seg", "maskdm" or "ddep".
    sets : tuple of str
        Data sets, by the names of their folders.
    claims : tuple of (str, str)
        Pairs of methods of which the paper has the first above the second.
    """

    title: str
    paper: str
    kind: str = "dense"
    sets: tuple[str, ...] = ("glas", "monuseg")
    levels: tuple[str, ...] = (TEN_PERCENT, ALL)
    rows: tuple[Row, ...] = ()
    claims: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def _rows(*methods: str) -> tuple[Row, ...]:
    return tuple(Row(method=method) for method in methods)


_MAIN = _rows("mae", "ddpm", "mdm", UNTRAINED)
_ORDER = (("mdm", "ddpm"), ("ddpm", "mae"), ("mdm", "mae"))
_BINARY = (
    'the IoU of GlaS is published as D/(2-D) of the mean Dice, and the "AJI" of MoNuSeg is the IoU of binary maps, mean over '
    "images; the AJI of instances (connected components) is another number and stands beside them",
)

TABLES: dict[str, Table] = {
    "mdm-1": Table(
        "GlaS", "mdm", sets=("glas",), rows=(Row("UNet"), Row("UNet++"), *_MAIN), claims=_ORDER, notes=_BINARY
    ),
    "mdm-2": Table("MoNuSeg", "mdm", sets=("monuseg",), rows=(Row("UNet"), *_MAIN), claims=_ORDER, notes=_BINARY),
    "mdm-3": Table(
        "Ablation: one corruption strength against all of them",
        "mdm",
        levels=(TEN_PERCENT,),
        rows=_rows("ddpm-fixed", "mdm-fixed", "mae", "ddpm", "mdm"),
        claims=(("mdm", "mdm-fixed"), ("ddpm", "ddpm-fixed"), *_ORDER),
        notes=("the timestep of the fixed variants is 50 here; the paper's is not known to us",),
    ),
    "mdm-4": Table(
        "Ablation: noise or image as target, MSE or SSIM as loss",
        "mdm",
        levels=(TEN_PERCENT,),
        rows=_rows("ddpm", "ddpm-image-mse", "ddpm-image-ssim", "mdm-mse", "mdm"),
        claims=(("mdm", "mdm-mse"), ("ddpm-image-ssim", "ddpm-image-mse"), ("mdm", "ddpm-image-ssim")),
        notes=("SSIM cannot judge noise: that corner of the table is empty",),
    ),
    "mdm-6": Table(
        "Timesteps that features are read at, and several of them side by side",
        "mdm",
        levels=(TEN_PERCENT,),
        rows=_rows("mdm@1", "mdm", "mdm@150", "mdm@250", "mdm@500", "mdm@50,150,250", "ddpm@50", "ddpm"),
        claims=(("mdm@50,150,250", "mdm"), ("ddpm", "ddpm@50"), ("mdm", "ddpm@50")),
        notes=("features are taken of the whole image at every t: nothing is hidden, only the network is told t",),
    ),
    "mdm-7": Table(
        "Side of a hidden patch",
        "mdm",
        levels=(TEN_PERCENT,),
        rows=_rows("mdm-patch4", "mdm", "mdm-patch16"),
        claims=(("mdm", "mdm-patch4"), ("mdm", "mdm-patch16")),
    ),
    "robustness": Table(
        "Corrupted test images, heads fitted on clean ones",
        "mdm",
        kind="robustness",
        levels=(TEN_PERCENT,),
        rows=_rows("mae", "ddpm", "mdm"),
        notes=(
            "the 15 corruptions of the MDM paper at severities 1, 3 and 5; masks stay as they are, also where the elastic "
            "transform moves pixels by a few",
            "frost is synthetic; images are corrupted in memory, not saved as JPEG first",
        ),
    ),
    "ddpm-seg": Table(
        "Mean IoU of ten MLPs on released DDPMs",
        "ddpm-seg",
        kind="ddpm-seg",
        sets=("ffhq_34", "bedroom_28"),
        rows=_rows("ddpm-seg"),
        notes=(
            "mean IoU as published counts a class that occurs nowhere as 0 and lets ignored pixels enlarge unions; beside it "
            "stands the mean over the classes that occur, without ignored pixels",
            "the head learns from a random part of the pixels, the published one from all",
        ),
    ),
    "maskdm": Table("Time of a step of pretraining against the share of hidden patches", "maskdm", kind="maskdm", sets=()),
    "ddep": Table(
        "Fine-tuned on a share of the labels: decoder pretrained over a frozen encoder, both pretrained, and neither",
        "ddep",
        kind="ddep",
        levels=(ONE, TEN_PERCENT, ALL),
        rows=_rows("no-decoder", "dep", "ddep"),
        claims=(("ddep", "no-decoder"), ("ddep", "dep")),
        notes=(
            "the paper's encoder is a Hybrid-ViT pretrained on ImageNet-21k and its sets are natural images: no figure of it "
            "can stand beside ours; without --encoder the encoder has random weights, and DDeP learns over nothing",
        ),
    ),
}

PUBLISHED: Mapping[tuple[str, str, str], Mapping[str, float]] = {
    ("glas", TEN_PERCENT, "UNet"): {"dice": 53.5},
    ("glas", TEN_PERCENT, "UNet++"): {"dice": 77.1},
    ("glas", TEN_PERCENT, "mae"): {"dice": 88.6},
    ("glas", TEN_PERCENT, "ddpm"): {"dice": 90.3},
    ("glas", TEN_PERCENT, "mdm"): {"dice": 91.6},
    ("glas", ALL, "mdm"): {"dice": 92.0},
    ("monuseg", TEN_PERCENT, "UNet"): {"dice": 54.8},
    ("monuseg", TEN_PERCENT, "mae"): {"dice": 76.2},
    ("monuseg", TEN_PERCENT, "ddpm"): {"dice": 74.4},
    ("monuseg", TEN_PERCENT, "mdm"): {"dice": 79.7, "aji_binary": 66.4},
    ("monuseg", ALL, "mdm"): {"dice": 81.0, "aji_binary": 68.3},
    ("ffhq_34", ALL, "ddpm-seg"): {"miou": 59.1},
    ("bedroom_28", ALL, "ddpm-seg"): {"miou": 49.4},
}
"""(set, level, method) to the figures of the papers, in percent, means of ten seeds."""


@dataclass(frozen=True)
class Scene:
    """A data set of the DDPM-seg paper: classes (background counted), the value that is ignored, training images."""

    classes: int
    ignore: int
    train: int
    test: int


SCENES = {"ffhq_34": Scene(34, 255, 20, 20), "bedroom_28": Scene(29, 0, 40, 20)}


def published_setup(data: str, method: str) -> str:
    """How the published figure came about."""
    if (data, TEN_PERCENT, method) not in PUBLISHED:
        return "not quoted"
    network = {"glas": _GLAS, "monuseg": _MONUSEG}.get(data, "")
    if method == "mae":
        epoch = {"glas": "1,999", "monuseg": "2,440"}[data]
        network = f"ViT-L with patches of 8, {epoch} epochs"
    elif method in ("UNet", "UNet++"):
        network = "trained on the labels alone"
    elif method == "ddpm":
        network = network.split(",")[0] + ", cosine schedule, learned variance"
    return f"{network}; {_HALVES[data]}; 10 seeds"
