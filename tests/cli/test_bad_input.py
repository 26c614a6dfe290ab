"""Bad input: exit code, one line that says what was met and what to do, nothing half-written.

Empty folder, no readable image, one unreadable among many, tiny, grey, RGBA, 16-bit, NaN, N channels, palette PNG, CMYK
and rotated JPEG, label map of another size, one class only, class 0 only,
missing backbone, truncated or foreign classifier, pickle with
code, read-only folder, wrong options. Stacks are in test_main_job.py; full disks in test_feature_cache.py, test_atomic.py and
test_pretraining.py; scarce GPU memory in test_features.py; image formats one by one in test_images.py.
"""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


def _save(path, array, **options):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def test_empty_folder(run, fitted, tmp_path):
    (tmp_path / "empty").mkdir()
    outcome = run("predict", fitted, tmp_path / "empty", "--out", tmp_path / "m")
    assert outcome.code == 1
    assert "empty" in outcome.error
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("command", ["predict", "features", "pretrain"])
def test_no_readable_image(run, fitted, tiny_backbone, tmp_path, command):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    args = {
        "predict": [fitted, tmp_path / "bad", "--out", tmp_path / "m"],
        "features": [tmp_path / "bad", "--backbone", tiny_backbone],
        "pretrain": [tmp_path / "bad", "--out", tmp_path / "j", "--steps", 1],
    }[command]
    outcome = run(command, *args)
    assert outcome.code == 1
    assert "a.png" in outcome.error
    assert not (tmp_path / "j").exists()


def test_one_unreadable_image_among_many(run, fitted, images_and_labels, tmp_path):
    (images_and_labels[0] / "broken.png").write_bytes(b"no image")
    outcome = run("predict", fitted, images_and_labels[0], "--out", tmp_path / "m")
    assert outcome.code == 1
    assert "1 of 4 images failed" in outcome.error
    assert "broken.png" in outcome.stderr
    assert sorted(path.name for path in (tmp_path / "m").glob("*.png")) == ["field0.png", "field1.png", "field2.png"]


def test_images_without_a_finite_pixel_fail_by_name_and_values_for_no_data_are_named(run, fitted, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    picture = np.random.default_rng(0).random((30, 40)).astype(np.float32)
    np.save(folder / "nan.npy", np.full((30, 40), np.nan))
    np.save(folder / "inf.npy", np.full((30, 40), -np.inf))
    np.save(folder / "huge.npy", picture.astype(np.float64) * 1e300)
    picture[:, :9] = -1e30
    np.save(folder / "gap.npy", picture)
    outcome = run("predict", fitted, folder, "--out", tmp_path / "m")
    assert outcome.code == 1
    assert "2 of 4 images failed" in outcome.error
    for name in ("nan", "inf"):
        assert re.search(rf"failed: .*{name} has no finite pixel", outcome.stderr)
    assert "gap.npy: taken as no data: values beyond 1e+29 (22 % of the pixels)" in outcome.stderr
    assert sorted(path.name for path in (tmp_path / "m").glob("*.png")) == ["gap.png", "huge.png"]
    assert "taken as no data" in (tmp_path / "m" / "export.json").read_text("utf-8")


def test_links_to_themselves_are_one_line(run, fitted, images_and_labels, tmp_path, monkeypatch):
    """Python's own way to the end of a link raises RuntimeError for them."""
    images, labels = images_and_labels
    monkeypatch.chdir(tmp_path)
    for name in ("loop", "loop.mdm", "loop.png"):
        (tmp_path / name).symlink_to(name)
    for args in (
        ("predict", fitted, "loop.png", "--out", "m"),
        ("predict", fitted, "loop", "--out", "m"),
        ("predict", "loop.mdm", images, "--out", "m"),
        ("predict", fitted, images, "--out", "loop"),
        ("predict", fitted, "~nobody-of-this-name/a.png", "--out", "~nobody-of-this-name/m"),
        ("fit", images, "loop", "--out", "new.mdm"),
        ("fit", images, labels, "--out", "new.mdm", "--backbone", "loop"),
        ("pretrain", images, "--out", "loop", "--steps", 1),
        ("evaluate", "loop", labels),
        ("jobs", "show", "loop"),
    ):
        outcome = run(*args)
        assert (outcome.code, "\n" in outcome.error.strip()) == (1, False), args
        assert "loop" in outcome.error or "~nobody" in outcome.error, args
    (images / "round.png").symlink_to("round.png")
    outcome = run("predict", fitted, images, "--out", "m")
    assert "1 of 4 images failed" in outcome.error
    assert "round.png: it is a link that leads round to itself" in outcome.error


def _odd_images(folder: Path) -> dict[str, tuple[int, int]]:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (20, 30, 3), np.uint8)
    _save(folder / "one.png", rgb[:1, :1])
    _save(folder / "grey.png", rgb[..., 0])
    _save(folder / "rgba.png", np.dstack([rgb, rgb[..., :1]]))
    _save(folder / "sixteen.png", (rgb[..., 0].astype(np.uint16) * 100))
    Image.fromarray(rgb).quantize(16).save(folder / "palette.png")
    Image.fromarray(rgb).convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn
    Image.fromarray(rgb).save(folder / "turned.jpg", exif=exif)
    np.save(folder / "nan.npy", np.where(rgb[..., 0] > 200, np.nan, 0.5).astype(np.float32))
    return {"one": (1, 1), "turned": (30, 20)}


def test_odd_but_usable_images(run, fitted, tmp_path):
    """1x1, grey, RGBA, 16-bit, palette, CMYK, rotated by EXIF, float with NaN: each gets a mask of its size."""
    sizes = _odd_images(tmp_path / "odd")
    outcome = run("predict", fitted, tmp_path / "odd", "--out", tmp_path / "m")
    assert outcome.code == 0
    masks = sorted((tmp_path / "m").glob("*.png"))
    assert len(masks) == 8
    assert outcome.stderr.count("warning: ") == 1
    assert "nan.npy differs from the images that the classifier was fitted on: fractions (float32)" in outcome.stderr
    for path in masks:
        assert np.asarray(Image.open(path)).shape == sizes.get(path.stem, (20, 30))


@pytest.mark.parametrize("number", [2, 5])
def test_other_channels_than_fitted_on(run, fitted, tmp_path, number):
    (tmp_path / "c").mkdir()
    np.save(tmp_path / "c" / "a.npy", np.zeros((number, 20, 30), np.uint8))
    outcome = run("predict", fitted, tmp_path / "c", "--out", tmp_path / "m")
    assert outcome.code == 1
    assert f"a.npy has {number} channels, and the classifier was fitted on images of red, green and blue" in outcome.error
    assert "--channels" in outcome.error
    assert not list((tmp_path / "m").glob("*.png"))
    Image.fromarray(np.ones((20, 30), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "truth").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "truth" / "a.png")
    outcome = run("evaluate", fitted, tmp_path / "truth", "--images", tmp_path / "c")
    assert (outcome.code, f"a.npy has {number} channels" in outcome.error) == (1, True)


def test_images_of_several_kinds_are_not_fitted_together(run, tiny_backbone, images_and_labels, tmp_path):
    images, labels = images_and_labels
    pixels = np.asarray(Image.open(images / "field0.png"))
    (images / "field0.png").unlink()
    np.save(images / "field0.npy", pixels[..., :2])
    order = ("fit", images, labels, "--out", tmp_path / "x.mdm", "--backbone", tiny_backbone, "--members", 1)
    outcome = run(*order)
    assert outcome.code == 1
    assert "field0.npy has 2 channels and" in outcome.error
    assert "field1.png red, green and blue" in outcome.error
    assert run(*order, "--channels", "0").code == 0


def _lossy(path: Path, image: Path) -> None:
    Image.open(path).save(path, format="jpeg")


def _lossy_webp(path: Path, image: Path) -> None:
    Image.open(path).save(path, format="webp")


def _copy_of_the_image(path: Path, image: Path) -> None:
    grey = Image.open(image).convert("L")
    grey.save(image)
    grey.save(path)


def _empty(path: Path, image: Path) -> None:
    Image.fromarray(np.zeros((60, 70), np.uint8)).save(path)


@pytest.mark.parametrize("head", ["ensemble", "finetune"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_lossy, "field0.png is stored as JPEG"),
        (_lossy_webp, "field0.png is stored as WebP"),
        (_copy_of_the_image, "field0.png has the very pixels of the image"),
        (_empty, "no labelled pixel in 1 label map: every value is 0"),
    ],
)
def test_label_maps_that_are_none(run, tiny_backbone, images_and_labels, tmp_path, head, spoil, words):
    images, labels = images_and_labels
    (labels / "field1.png").unlink()
    spoil(labels / "field0.png", images / "field0.png")
    out = tmp_path / "x.mdm"
    outcome = run("fit", images, labels, "--out", out, "--backbone", tiny_backbone, "--head", head, "--no-cache")
    assert outcome.code == 1
    assert words in outcome.error
    assert not out.exists()


def test_the_folder_of_images_given_as_labels(run, tiny_backbone, images_and_labels, tmp_path):
    images, _ = images_and_labels
    outcome = run("fit", images, images, "--out", tmp_path / "x.mdm", "--backbone", tiny_backbone)
    assert outcome.code == 1
    assert "field0.png is the image itself" in outcome.error


def test_many_classes_are_said_unless_they_are_meant(run, tiny_backbone, images_and_labels, tmp_path):
    images, labels = images_and_labels
    (labels / "field1.png").unlink()
    values = (np.arange(4200) % 60 + 1).reshape(60, 70).astype(np.uint8)
    Image.fromarray(values).save(labels / "field0.png")
    order = ["fit", images, labels, "--out", tmp_path / "x.mdm", "--backbone", tiny_backbone, "--members", 1]
    names = ",".join(f"c{number}" for number in range(60))
    said = [run(*order, *more).stderr for more in ([], ["--many-classes"], ["--classes", names])]
    assert "warning: 60 classes are in the labels (the values 1, 2, 3 ... 60)" in said[0]
    assert "--many-classes" in said[0]
    assert [text.count("warning") for text in said] == [1, 0, 0]


def test_two_images_of_one_name(run, fitted, images_and_labels, tmp_path):
    _save(images_and_labels[0] / "field0.bmp", np.zeros((5, 5, 3), np.uint8))
    outcome = run("predict", fitted, images_and_labels[0], "--out", tmp_path / "m")
    assert outcome.code == 1
    assert "field0.bmp" in outcome.error


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (np.ones((5, 5), np.uint8), [], "5 x 5"),
        (np.ones((60, 70), np.uint8), [], "two classes"),
        (np.zeros((60, 70), np.uint8), [], "--unlabelled none"),
        (np.zeros((60, 70, 3), np.uint8) + np.arange(3, dtype=np.uint8), [], "channels that differ"),
        (np.arange(4200, dtype=np.uint8).reshape(60, 70) % 3, ["--classes", "a"], "1 classes"),
    ],
    ids=["another size", "one class only", "class 0 only", "colours", "wrong number of names"],
)
def test_label_maps_that_cannot_be_used(run, tiny_backbone, images_and_labels, tmp_path, values, options, words):
    for path in (tmp_path / "labels").iterdir():
        path.unlink()
    _save(tmp_path / "labels" / "field0.png", values)
    outcome = run(
        "fit", images_and_labels[0], tmp_path / "labels", "--out", tmp_path / "x.mdm", "--backbone", tiny_backbone, *options
    )
    assert outcome.code in (1, 2)
    assert words in outcome.error
    assert not (tmp_path / "x.mdm").exists()


def test_no_label_map_matches(run, tiny_backbone, images_and_labels, tmp_path):
    _save(tmp_path / "others" / "zzz.png", np.ones((60, 70), np.uint8))
    outcome = run("fit", images_and_labels[0], tmp_path / "others", "--out", tmp_path / "x.mdm", "--backbone", tiny_backbone)
    assert outcome.code == 1
    assert "none of the 3 images" in outcome.error


def test_missing_backbone_lists_the_ones_there_are(run, images_and_labels, tmp_path):
    outcome = run("fit", *images_and_labels, "--out", tmp_path / "x.mdm", "--backbone", "nonesuch")
    assert outcome.code == 1
    assert "there is no backbone 'nonesuch'" in outcome.error


@pytest.mark.parametrize("damage", ["truncated", "foreign", "missing", "newer"])
def test_classifier_that_cannot_be_read(run, fitted, images_and_labels, tmp_path, damage):
    path = tmp_path / "bad.mdm"
    if damage == "truncated":
        path.write_bytes(fitted.read_bytes()[:-300])
    elif damage == "foreign":
        path.write_text("hello")
    elif damage == "newer":
        import json
        import zipfile

        with zipfile.ZipFile(fitted) as old, zipfile.ZipFile(path, "w") as new:
            new.writestr("classifier.json", json.dumps(json.loads(old.read("classifier.json")) | {"version": 99}))
            new.writestr("ensemble.safetensors", old.read("ensemble.safetensors"))
    outcome = run("predict", path, images_and_labels[0], "--out", tmp_path / "m")
    assert outcome.code == 1
    assert "bad.mdm" in outcome.error


def test_backbone_with_other_weights_than_its_card(run, tiny_backbone, images_and_labels, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_backbone, tmp_path / "damaged")
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    outcome = run("fit", *images_and_labels, "--out", tmp_path / "x.mdm", "--backbone", folder)
    assert outcome.code == 1
    assert "not the file its card describes" in outcome.error


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("kind", ["pickle with code", "truncated", "no tensors", "missing"])
def test_checkpoint_that_cannot_be_imported(run, tmp_path, kind):
    path, trap = tmp_path / "model.pt", tmp_path / "trap"
    if kind == "pickle with code":
        path.write_bytes(pickle.dumps(_Evil(trap)))
    elif kind == "truncated":
        torch.save({"a": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:500])
    elif kind == "no tensors":
        torch.save({"epoch": 3}, path)
    outcome = run("backbones", "import", path, "--arch", "small", "--name", "x")
    assert outcome.code == 1
    assert "model.pt" in outcome.error
    assert not trap.exists()


def test_output_folder_that_is_a_file(run, fitted, images_and_labels, tmp_path):
    (tmp_path / "m").write_text("")
    outcome = run("predict", fitted, images_and_labels[0], "--out", tmp_path / "m")
    assert outcome.code == 1
    assert (tmp_path / "m").read_text() == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fit", "I", "L", "--out", "x.mdm", "--blocks", "a-b"], "--blocks"),
        (["fit", "I", "L", "--out", "x.mdm", "--unlabelled", "maybe"], "--unlabelled"),
        (["fit", "I", "L", "--out", "x.mdm", "--class-weight", "heavy"], "--class-weight"),
        (["predict", "F", "I", "--out", "m", "--format", "gif"], "--format"),
        (["predict", "F", "I", "--out", "m", "--no-cache", "--cache", "c"], "contradict"),
        (["predict", "F", "I", "--out", "m", "--device", "tpu"], "--device cpu"),
        (["features", "I", "--backbone", "B", "--blocks", "99"], "blocks 0"),
        (["pretrain", "I", "--out", "j"], "--steps N or --minutes M"),
        (["pretrain", "I", "--out", "j", "--steps", "1", "--size", "huge"], "--size"),
        (["pretrain", "I", "--out", "j", "--steps", "1", "--recipe", "soup"], "recipe"),
        (["pretrain", "I", "--out", "j", "--steps", "1", "--crop", "50"], "--crop 50"),
        (["cache", "prune", "--max-size", "lots"], "--max-size"),
    ],
)
def test_wrong_options_exit_with_2(run, fitted, tiny_backbone, images_and_labels, args, words):
    places = {"I": images_and_labels[0], "L": images_and_labels[1], "F": fitted, "B": tiny_backbone}
    outcome = run(*[places.get(arg, arg) for arg in args])
    assert outcome.code == 2
    assert words in outcome.error
