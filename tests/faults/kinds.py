"""Kinds of files that are spoilt, the entry of the program that each is given to, and what must come of it."""

import contextlib
import csv
import dataclasses
import io
import json
import random
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tests.faults import mutations
from tests.faults.makers import HEIGHT, WIDTH, Kit
from tests.faults.mutations import spoil
from tests.faults.oracle import Ended, Entry, Wrong, command, service, silence

_BYTEWISE = ("flip", "truncate", "splice")
_FORMULA = ("=", "+", "@", "\t", "\r")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One spoilt input and what is done with it.

    Attributes
    ----------
    words : str
        What is spoilt and how, and which entry gets it.
    allowed : tuple of str
        Folders of the case, beside "out", "home" and "cache", that the program may write into.
    check : callable
        What is wrong with the outcome, beside what the judge of all entries looks at.
    """

    words: str
    entry: Entry
    allowed: tuple[str, ...] = ()
    codes: tuple[int, ...] = (0, 1, 2)
    check: Callable[[Ended], Iterable[str]] = lambda ended: ()


def then(entry: Entry, check: Callable[[], None]) -> Entry:
    """An entry, and a look at its result, in the same process, if it says that all is well."""

    def both() -> None:
        try:
            entry()
        except SystemExit as error:
            if error.code:
                raise
        check()

    return both


def wants(condition: object, words: str) -> None:
    """Say that a result is wrong unless `condition` holds."""
    if not condition:
        raise Wrong(words)


# ------------------------------------------------------------------------------------------------------------- images


def images(rng: random.Random, kit: Kit, case: Path) -> Trial:
    """An image in any format, alone or beside a sound one."""
    folder = case / "in"
    folder.mkdir()
    shutil.copy(kit.images / "f0.png", folder)
    chosen = rng.choice(sorted(kit.odd.iterdir()))
    spoilt = folder / chosen.name
    (shutil.copytree if chosen.is_dir() else shutil.copy)(chosen, spoilt)
    words = spoil(rng, spoilt)
    if rng.random() < 0.4:
        return Trial(f"read {words}", service(lambda: pixels_agree(spoilt)))

    def check(ended: Ended) -> Iterator[str]:
        mask = case / "out" / "f0.png"
        if ended.code == 0 and not mask.exists():
            yield "lost: the sound image beside it has no mask"
        if mask.exists() and not same_mask(mask, kit.root / "reference" / "f0.png"):
            yield "silently wrong: the sound image beside it has another mask"

    return Trial(f"predict {words}", predict(kit, case, folder), check=check)


def predict(
    kit: Kit, case: Path, *images: Path, classifier: Path | None = None, more: tuple[object, ...] = ("--no-cache",)
) -> Entry:
    """The command that writes masks."""
    return command("predict", classifier or kit.classifier, *images, "--out", case / "out", "--device", "cpu", *more)


def same_mask(one: Path, other: Path) -> bool:
    """Whether two masks hold the same values."""
    try:
        with Image.open(one) as a, Image.open(other) as b:
            return np.array_equal(np.asarray(a), np.asarray(b))
    except (OSError, SyntaxError):  # Pillow's word for a broken PNG
        return False


def pixels_agree(path: Path) -> None:
    """What we read is what the decoder of the format reads; an error is as good."""
    from mdm_studio.io.images import open_image

    with open_image(path) as file:
        ours, said = file.plane().read(slice(None), slice(None)), bool(file.remarks)
    with silence():  # libtiff prints what it thinks of a file
        decoded = list(decodings(path, pages=None if said else 1))  # a page that is left out is said to be
    wants(decoded, f"{path.name} is read, and no decoder can")
    agree = any(same_pixels(ours, plane) for each in decoded for plane in arranged(each, ours.shape))
    wants(agree, f"{path.name} is read as {ours.shape} {ours.dtype}, its decoder gives {[each.shape for each in decoded]}")


def same_pixels(ours: NDArray[np.generic], theirs: NDArray[np.generic]) -> bool:
    """Whether values agree, those that are no numbers among them."""
    if ours.shape != theirs.shape:
        return False
    return np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f" and theirs.dtype.kind == "f")


def arranged(array: NDArray[np.generic], shape: tuple[int, ...]) -> Iterator[NDArray[np.generic]]:
    """The first plane of an array as ``(C, H, W)``, in each way that gives the shape."""
    channels = shape[0]
    for last in {array.ndim, 3, 2}:
        if last <= array.ndim:
            each = array[(0,) * (array.ndim - last)]
            if each.ndim == 2:
                yield each[None]
            elif each.ndim == 3:
                yield from (each, each[..., :channels].transpose(2, 0, 1), each[:, :, :].transpose(2, 0, 1))
            elif each.ndim == 4:
                yield from (each.reshape(-1, *each.shape[-2:]), each[:, 0], each[0])


def decodings(path: Path, *, pages: int | None = 1) -> Iterator[NDArray[np.generic]]:
    """An image as others decode it: Pillow, in each way that the documentation of our readers tells; tifffile; NumPy; zarr."""
    warnings.simplefilter("ignore")  # theirs; the program has had its say
    suffix = path.suffix.lower()
    with contextlib.suppress(Exception):
        if suffix == ".npy":
            yield np.load(path)
        elif suffix == ".zarr":
            import zarr

            yield zarr.open_group(path, mode="r")["0"][...]
        elif suffix in (".tif", ".tiff"):
            yield tifffile.imread(path)
    with contextlib.suppress(Exception):  # metadata may be spoilt where pixels are not
        if suffix in (".tif", ".tiff"):
            with tifffile.TiffFile(path) as file:
                for page in list(file.pages)[:pages]:
                    with contextlib.suppress(Exception):
                        yield page.asarray()
    if suffix not in (".npy", ".zarr"):
        with contextlib.suppress(Exception):
            yield from _pillow(path)
        with contextlib.suppress(Exception):
            import imagecodecs

            yield imagecodecs.imread(path)


def _pillow(path: Path) -> Iterator[NDArray[np.generic]]:
    with Image.open(path) as picture:
        picture.load()
        for each in (picture, ImageOps.exif_transpose(picture)):
            yield np.asarray(each)
            if each.mode == "1":
                yield np.asarray(each.convert("L"))
            yield np.asarray(each.convert("RGB"))
            if each.mode == "LA" or (each.mode == "P" and "transparency" in each.info):
                yield np.asarray(each.convert("RGBA").convert("RGB"))
                yield np.asarray(each.convert("L"))


# ------------------------------------------------------------------------------------------------- labels, classifiers


def labels(rng: random.Random, kit: Kit, case: Path) -> Trial:
    """A label map beside a sound one: the classes learnt are those that it holds."""
    shutil.copytree(kit.labels, case / "in")
    path = case / "in" / "f1.png"
    if rng.random() < 0.4:
        values = np.asarray(Image.open(path))
        path.unlink()
        path = path.with_suffix(rng.choice((".tif", ".npy")))
        _save(path, values)
    words = spoil(rng, path)
    fit = command(
        "fit", kit.images, case / "in", "--out", case / "out" / "x.mdm", "--backbone", kit.backbone, "--members", 1,
        "--no-cache", "--device", "cpu",
    )  # fmt: skip
    return Trial(f"fit with {words}", then(fit, lambda: _classes_agree(case / "in", case / "out" / "x.mdm")))


def _save(path: Path, values: NDArray[np.generic]) -> None:
    (np.save if path.suffix == ".npy" else tifffile.imwrite)(path, values)


def _classes_agree(folder: Path, classifier: Path) -> None:
    with zipfile.ZipFile(classifier) as archive:
        facts = json.loads(archive.read("classifier.json"))
    learnt = {each["value"] for each in facts["classes"]}
    held: list[set[int]] = []
    for path in sorted(folder.iterdir()):
        maps = [set(np.unique(each).tolist()) - {0} for each in decodings(path)]
        held.append(set().union(*maps) if maps else set())
    wants(learnt <= set().union(*held), f"classes {sorted(learnt)} were learnt, and the label maps hold {held}")


def classifiers(rng: random.Random, kit: Kit, case: Path) -> Trial:
    """A FILE.mdm: spoilt bytes give an error or the same mask, and no mask has a value that is no class."""
    path = case / "x.mdm"
    shutil.copy(kit.classifier, path)
    words = spoil(rng, path)
    tables = ("--no-cache", "--objects", "--table") if rng.random() < 0.3 else ("--no-cache",)
    entry = predict(kit, case, kit.images / "f0.png", classifier=path, more=tables)
    return Trial(f"predict with {words}", then(entry, lambda: _mask_agrees(kit, case, path, words)))


def _mask_agrees(kit: Kit, case: Path, path: Path, words: str) -> None:
    mask = case / "out" / "f0.png"
    if words.endswith(_BYTEWISE):
        wants(same_mask(mask, kit.root / "reference" / "f0.png"), "spoilt bytes of a classifier give another mask")
    with zipfile.ZipFile(path) as archive:
        classes = {each["value"] for each in json.loads(archive.read("classifier.json"))["classes"]}
    with Image.open(mask) as picture:
        values = set(np.unique(np.asarray(picture)).tolist())
    wants(values <= classes | {0}, f"the mask holds {sorted(values)}, and the classes are {sorted(classes)}")
    for table in (case / "out").rglob("*.csv"):
        for row in csv.reader(io.StringIO(table.read_text("utf-8"))):
            formulas = [field for field in row if field.startswith(_FORMULA)]
            wants(not formulas, f"{table.name} holds a formula: {formulas[:1]}")


def backbones(rng: random.Random, kit: Kit, case: Path) -> Trial:
    """A backbone's folder, or a published checkpoint: listed, shown, imported and fitted with."""
    kind = rng.choice(("list", "info", "fit", "import", "import"))
    if kind == "import":
        path = case / rng.choice(("tiny.pt", "tiny.safetensors"))
        shutil.copy(kit.checkpoint if path.suffix == ".pt" else kit.backbone / "weights.safetensors", path)
        words = spoil(rng, path)
        options = [f"--option={name}={value}" for name, value in (("model_channels", 32), ("channel_mult", "(1,1)"))]
        entry = command("backbones", "import", path, "--arch", "small", "--name", "new", "--intensity", "range", *options)
        return Trial(f"import {words}", entry)
    if kind == "list":
        for name in ("mine", "other"):
            shutil.copytree(kit.backbone, case / "home" / "backbones" / name)
        words = spoil(rng, case / "home" / "backbones" / "mine")
        return Trial(f"list with {words}", command("backbones", "list", "--json"), codes=(0,), check=_holds('/other"'))
    folder = case / "in"
    shutil.copytree(kit.backbone, folder)
    words = spoil(rng, folder)
    if kind == "info":
        return Trial(f"info of {words}", command("backbones", "info", folder, "--json"))
    more = ("--backbone", folder, "--members", 1, "--no-cache", "--device", "cpu")
    return Trial(f"fit with {words}", command("fit", kit.images, kit.labels, "--out", case / "out" / "x.mdm", *more))


def _holds(text: str) -> Callable[[Ended], Iterator[str]]:
    def check(ended: Ended) -> Iterator[str]:
        if text not in ended.stdout:
            yield f"lost: {text} is not listed"

    return check


# --------------------------------------------------------------------------------------------- projects, jobs, settings


def projects(rng: random.Random, kit: Kit, case: Path) -> Trial:
    """A project: what is sound in it is there, what is not is said, and nothing is replaced by nothing."""
    folder = case / "in"
    shutil.copytree(kit.project, folder)
    words = spoil(rng, folder, only=lambda path: path.name not in (".lock", "classifier.mdm"))
    whole = rng.random() < 0.25
    entry = service(lambda: _use_project(kit, folder) if whole else _read_project(kit, folder, words))
    return Trial(f"{'work in' if whole else 'open'} {words}", entry, allowed=("in",))


def _read_project(kit: Kit, folder: Path, words: str) -> None:
    from mdm_studio.services.project import Project

    with Project.open(folder) as project:
        said = bool(project.warnings)
        for key, facts in project.state.images.items():
            name = Path(facts.name).stem
            if name not in ("f0", "f1") or key not in project.labelled():
                continue
            found = project.open_labels(key, facts).read((), slice(0, HEIGHT), slice(0, WIDTH))
            truth = np.asarray(Image.open(kit.labels / f"{name}.png"))
            wants(said or project.warnings or np.array_equal(found, truth), f"strokes of {name} are others, without a word")
        strokes = len(project.labelled())
        wants(strokes == 2 or project.warnings or _aside(folder), f"strokes of {2 - strokes} images are gone, without a word")


def _aside(folder: Path) -> bool:
    return any("damaged" in path.name for path in folder.rglob("*"))


def _use_project(kit: Kit, folder: Path) -> None:
    from mdm_studio.errors import MDMStudioError
    from mdm_studio.services.session import LiveSettings, Session
    from mdm_studio.services.workspace import Workspace

    session = Session(None, settings=LiveSettings(backbone=str(kit.backbone), smooth=0), keep=folder)
    try:
        workspace = Workspace(folder, session)
    except BaseException:
        session.close()
        raise
    try:
        workspace.open()
        for entry in workspace.entries:
            with contextlib.suppress(MDMStudioError):
                workspace.load(entry.id)
    finally:
        wants(workspace.close(timeout=60), "the session did not end")


def jobs(rng: random.Random, kit: Kit, case: Path) -> Trial:
    """Folders and notes of jobs: one that is spoilt hides no other one, and can be gone on with or says why not."""
    shutil.copytree(kit.home / "jobs", case / "home" / "jobs")
    mine = case / "home" / "jobs" / "mine-1234"
    if rng.random() < 0.35:
        words = spoil(
            rng, mine, only=lambda path: path.suffix in (".json", ".jsonl", ".safetensors") and "backbone" not in path.parts
        )
        return Trial(f"resume {words}", command("pretrain", kit.images, "--out", mine, "--resume", "--steps", 7))
    spoilt = case / "home" / "jobs" / "elsewhere-abcd.json" if rng.random() < 0.2 else mine
    words = spoil(rng, spoilt, only=lambda path: path.suffix in (".json", ".jsonl", ".txt"))
    verb = rng.choice(
        (("list", "--json"), ("list",), ("show", "mine"), ("logs", "mine"), ("cancel", "mine"), ("remove", "mine"))
    )
    if verb[0] != "list":
        return Trial(f"{verb[0]} with {words}", command("jobs", *verb))
    other = "elsewhere-abcd" if spoilt == mine else "mine-1234"
    return Trial(f"list with {words}", command("jobs", *verb), codes=(0,), check=_holds(other))


def classes(rng: random.Random, kit: Kit, case: Path) -> Trial:
    """A table of classes; what is read is what is written again."""
    from mdm_studio.io.class_table import read_class_table, write_class_table

    path = case / "classes.csv"
    path.write_text("value,name,color\n1,ground,#112233\n2,disc,#e69f00\n7,Zellkern Ω,\n", "utf-8")
    words = spoil(rng, path)

    def call() -> None:
        found = read_class_table(path)
        write_class_table(case / "out" / "again.csv", found)
        wants(read_class_table(case / "out" / "again.csv") == found, "a table is read otherwise than it was written")

    return Trial(words, service(call))


def settings(rng: random.Random, kit: Kit, case: Path) -> Trial:
    """The settings: whatever stands there, the program starts and keeps them."""
    from mdm_studio.desktop.settings import SettingsFile

    path = case / "home" / "settings.json"
    path.parent.mkdir()
    shutil.copy(kit.home / "settings.json", path)
    words = spoil(rng, path)

    def call() -> None:
        file = SettingsFile(path)
        file.change(theme="light", folder="/there")
        again = SettingsFile(path)
        wants(again.value == file.value or file.problem, "settings are read otherwise than they were written")

    return Trial(words, service(call), codes=(0,))


# ------------------------------------------------------------------------------------------------------ caches, exports


def caches(rng: random.Random, kit: Kit, case: Path) -> Trial:
    """The feature cache: what is spoilt in it is computed again."""
    shutil.copytree(kit.root / "cache", case / "cache")
    words = spoil(rng, case / "cache", only=lambda path: path.name != ".lock")
    entry = predict(kit, case, kit.images, more=("--cache", case / "cache"))
    return Trial(f"predict with {words}", then(entry, lambda: _all_masks_agree(kit, case)), codes=(0,))


def exports(rng: random.Random, kit: Kit, case: Path) -> Trial:
    """A folder of masks that is gone on with: what is spoilt is done again or reported, never taken for done."""
    shutil.copytree(kit.root / "reference", case / "out")
    words = spoil(rng, case / "out")
    return Trial(f"predict into {words}", then(predict(kit, case, kit.images), lambda: _all_masks_agree(kit, case)))


def _all_masks_agree(kit: Kit, case: Path) -> None:
    for path in sorted((kit.root / "reference").glob("*.png")):
        wants(same_mask(path, case / "out" / path.name), f"{path.name} is another mask")


KINDS: dict[str, Callable[[random.Random, Kit, Path], Trial]] = {
    each.__name__: each for each in (images, labels, classifiers, backbones, projects, jobs, classes, settings, caches, exports)
}
SHARES = {"images": 6, "labels": 2, "classifiers": 3, "backbones": 3, "projects": 3, "jobs": 3, "classes": 1, "settings": 1,
          "caches": 1, "exports": 1}  # fmt: skip


def canary(case: Path) -> bool:
    """Whether code that a file brought along was run."""
    return any(path.name == mutations.CANARY for path in case.rglob("*"))


def environment(case: Path) -> dict[str, str]:
    """Folders of the user for a case."""
    folders = {"MDM_STUDIO_DATA": "home", "MDM_STUDIO_CACHE": "cache", "TMPDIR": "tmp", "HOME": "user"}
    (case / "tmp").mkdir(exist_ok=True)
    return {name: str(case / folder) for name, folder in folders.items()} | {"COLUMNS": "250"}
