"""Jobs of denoising pretraining over an encoder of somebody else's."""

import pytest
import torch
from PIL import Image

from mdm_studio.engine.backbones import load_backbone
from mdm_studio.engine.hub_import import read_encoder
from mdm_studio.engine.pretrain import PretrainConfig
from mdm_studio.errors import UsageError
from mdm_studio.io.images import find_images
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.services.pretraining import plan, run
from mdm_studio.services.pretraining_plan import caution
from mdm_studio.testing import blobs

CONFIG = PretrainConfig(crop=32, batch=2, warmup=1, precision="fp32", device="cpu", ema=0.5)


@pytest.fixture
def encoder(tmp_path):
    from transformers import ResNetBackbone, ResNetConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic")
    ResNetBackbone(config).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def job(out, images, recipe, **settings):
    planned, _ = plan(find_images([str(images)]), name="mine", recipe=recipe, config=CONFIG, steps=2, **settings)
    folder = JobFolder(out)
    folder.create(planned.to_json())
    list(run(folder))
    return planned, folder


def test_over_an_encoder_of_others(encoder, tmp_path, monkeypatch):
    """DDeP leaves it as it is, bit for bit, and says where it is from; DeP, begun with the result, trains it on."""
    (tmp_path / "images").mkdir()
    Image.fromarray(blobs(64, 64)[0]).save(tmp_path / "images" / "a.png")
    monkeypatch.chdir(tmp_path)
    planned, folder = job(tmp_path / "first", "images", "ddep", encoder="encoder")
    assert planned.encoder == str(encoder)  # a worker may run in another folder
    assert caution(planned) == ""
    backbone = load_backbone(folder.backbone)
    assert backbone.card.training["encoder"] == str(encoder)
    assert f"`{encoder}`, whose licence" in (folder.backbone / "README.md").read_text()
    state = backbone.net.state_dict()
    _, weights, _ = read_encoder(str(encoder))
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    assert state["out.bias"].any()

    planned, folder = job(tmp_path / "second", "images", "dep", start_from=str(folder.root))
    assert not planned.network.frozen_encoder
    state = load_backbone(folder.backbone).net.state_dict()
    assert not all(torch.equal(state[name], value) for name, value in weights.items())


def test_what_cannot_be_and_what_should_not_be(images_and_labels, encoder):
    paths = find_images([str(images_and_labels[0])])
    planned, _ = plan(paths, name="mine", recipe="ddep", config=CONFIG, steps=1)
    assert "random weights" in caution(planned)
    assert caution(plan(paths, name="mine", recipe="dep", config=CONFIG, steps=1)[0]) == ""
    with pytest.raises(UsageError, match="goes with the recipes dep and ddep"):
        plan(paths, name="mine", recipe="mdm", encoder=str(encoder), config=CONFIG, steps=1)
