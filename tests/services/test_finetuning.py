"""``fit --head finetune``: a file that brings its network along and predicts as it did when it was fitted."""

import dataclasses
import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from mdm_studio.engine.backbones import load_backbone
from mdm_studio.engine.features import PlaneFeatures
from mdm_studio.engine.finetune import FinetuneConfig
from mdm_studio.engine.objects import finished
from mdm_studio.engine.smoothing import predict_plane
from mdm_studio.errors import ClassifierError, UsageError
from mdm_studio.io.backbone_files import write_backbone
from mdm_studio.io.images import open_image
from mdm_studio.nn.denoiser import Denoiser
from mdm_studio.services.classifier import load_classifier
from mdm_studio.services.export import export
from mdm_studio.services.export_request import ExportRequest, PredictOptions
from mdm_studio.services.fitting import FitRequest, fit
from tests.nn.test_denoiser import TINY

_QUICK = FinetuneConfig(steps=4, batch=2, crop=32, lr=1e-3, warmup=1)


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory, export_set, tiny_backbone):
    """A classifier of the strokes of `export_set`, as it was when it was fitted, and its file; its backbone is gone."""
    folder = tmp_path_factory.mktemp("finetuned")
    backbone = shutil.copytree(tiny_backbone, folder / "mine")
    images = export_set.images[0].parent
    request = FitRequest(
        (str(images),),
        images.parent / "labels",
        str(backbone),
        class_names=("ground", "disc"),
        head="finetune",
        finetune=_QUICK,
    )
    classifier = finished(fit(request, None))
    classifier.save(folder / "a.mdm")
    shutil.rmtree(backbone)
    return classifier, folder / "a.mdm"


def _predict(classifier, path):
    with open_image(path) as image:
        source = PlaneFeatures(classifier.backbone, image.plane(), classifier.settings)
        found = np.zeros((len(classifier.info.classes), image.height, image.width), np.float32)
        for rows, cols, tile in predict_plane(classifier.ensemble, source, smooth=classifier.info.smooth):
            found[:, rows, cols] = tile.probabilities
    return found


def test_it_predicts_what_it_predicted_before_it_was_saved(fine_tuned, export_set):
    before, path = fine_tuned
    after = load_classifier(path)
    assert after.info == before.info
    assert after.info.head == "finetune"
    assert after.info.embedded
    assert [each.name for each in after.info.classes] == ["ground", "disc"]
    one, other = (_predict(each, export_set.images[2]) for each in (before, after))
    np.testing.assert_array_equal(one, other)
    truth = np.asarray(Image.open(export_set.images[2])).mean(-1) > 110
    assert ((one[1] > 0.5) == truth).mean() > 0.9


def test_it_is_exported_like_any_other(fine_tuned, export_set, tmp_path):
    options = PredictOptions(tmp_path / "out", probabilities=True, uncertainty=True)
    request = ExportRequest(fine_tuned[1], export_set.images[:1], options)
    list(export(request))
    assert set(np.unique(Image.open(tmp_path / "out" / "field0.png"))) == {1, 2}
    again = list(export(request))
    assert [result.state for result in again if hasattr(result, "state")] == ["skipped"]  # its digest is its own


def test_a_file_without_its_network_says_so(fine_tuned, tmp_path):
    with zipfile.ZipFile(fine_tuned[1]) as archive, zipfile.ZipFile(tmp_path / "b.mdm", "w") as other:
        for name in ("classifier.json", "ensemble.safetensors"):
            other.writestr(name, archive.read(name))
    with pytest.raises(ClassifierError, match="lacks the network"):
        load_classifier(tmp_path / "b.mdm")
    with zipfile.ZipFile(fine_tuned[1]) as archive, zipfile.ZipFile(tmp_path / "c.mdm", "w") as other:
        for name in archive.namelist():
            card = json.loads(archive.read(name)) if name == "backbone.json" else None
            text = archive.read(name) if card is None else json.dumps(card | {"arch": card["arch"] | {"kind": "unknown"}})
            other.writestr(name, text)
    with pytest.raises(ClassifierError, match="unknown"):
        load_classifier(tmp_path / "c.mdm")
    with pytest.raises(UsageError, match="brings its own network"):
        load_classifier(fine_tuned[1], backbone="mdm-nuclei")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timesteps": (50, 150)}, "2 timesteps"),
        ({"scales": (1, 4)}, "2 working scales"),
        ({"filters": True}, "filter bank"),
        ({"class_names": ("a", "b", "c")}, "names 3 classes"),
        ({"head": "forest"}, "no head called 'forest'"),
    ],
)
def test_what_it_cannot_do_is_said(images_and_labels, tiny_backbone, options, words):
    images, labels = images_and_labels
    request = FitRequest((str(images),), labels, str(tiny_backbone), **({"head": "finetune", "finetune": _QUICK} | options))
    with pytest.raises(UsageError, match=words):
        finished(fit(request, None))


def test_dense_masks_that_number_objects(images_and_labels, tiny_backbone):
    """Whole masks, at a coarser scale than the image's own."""
    images, labels = images_and_labels
    for path in labels.iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask == 2, 7, 0).astype(np.uint8)).save(path)
    request = FitRequest(
        (str(images),), labels, str(tiny_backbone), scales=(2,), unlabelled=None, objects=True, head="finetune", finetune=_QUICK
    )
    info = finished(fit(request, None)).info
    assert [(each.value, each.name) for each in info.classes] == [(0, "background"), (1, "object")]
    assert info.scales == (2,)
    assert info.training["pixels"] == 2 * 60 * 70


@pytest.mark.parametrize(
    ("kind", "weight"),
    [("mae", "blocks.0.attn.qkv.weight"), ("ddep", "encoder.model"), ("ddpm", "input_blocks.0.0.weight")],
)
def test_any_network(kind, weight, tiny_backbone, tokens_backbone, images_and_labels, tmp_path):
    """Tokens read by windows; a frozen encoder of others, which learns too; noise in what is seen."""
    images, labels = images_and_labels
    folder = tokens_backbone if kind == "mae" else _made(kind, tiny_backbone, tmp_path / kind)
    quick = FinetuneConfig(steps=1, batch=2, crop=0 if kind == "mae" else 32, lr=1e-2, warmup=1)
    request = FitRequest((str(images),), labels, str(folder), head="finetune", finetune=quick)
    classifier = finished(fit(request, None))
    classifier.save(tmp_path / "a.mdm")
    one, other = (_predict(each, images / "field2.png") for each in (classifier, load_classifier(tmp_path / "a.mdm")))
    np.testing.assert_array_equal(one, other)
    before = {f"inner.{name}": value.numpy() for name, value in load_backbone(folder).net.state_dict().items()}
    after = classifier.embedded.weights
    changed = {name for name, value in before.items() if value.ndim > 1 and not np.allclose(value, after[name], atol=1e-3)}
    assert any(name.startswith(f"inner.{weight}") for name in changed)


def _made(kind, tiny_backbone, folder):
    """A backbone of another recipe than the tiny one's."""
    card = json.loads((tiny_backbone / "backbone.json").read_text()) | {"recipe": {"name": kind}}
    net = load_backbone(tiny_backbone).net
    if kind == "ddep":
        net = Denoiser(TINY)
        card |= {"arch": {"kind": "denoiser", **dataclasses.asdict(TINY)}, "blocks": [3, 4], "timesteps": [0]}
    write_backbone(folder, net.state_dict(), card, "# made\n")
    return folder
