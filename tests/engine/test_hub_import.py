"""Models of Hugging Face become backbones and encoders; tiny ones, made here with random weights."""

import json

import pytest
import torch

from mdm_studio.engine import hub_import
from mdm_studio.engine.backbones import BackboneCard, load_backbone
from mdm_studio.engine.hub_import import denoiser_network, import_hub_model
from mdm_studio.errors import BackboneError, CheckpointError, UsageError
from mdm_studio.io.backbone_files import write_backbone
from mdm_studio.nn.denoiser import Denoiser

FACTS = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}


@pytest.fixture
def classifier(tmp_path):
    """Folder of a ResNet that classifies, as most models are published: its encoder's weights have a prefix."""
    from transformers import ResNetConfig, ResNetForImageClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = tmp_path / "resnet-9"
    ResNetForImageClassification(ResNetConfig(**FACTS)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.5, 0.4], "image_std": [0.2, 0.2, 0.2]}))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    return folder


def test_import(classifier):
    folder = import_hub_model(str(classifier), name="mine")
    card, backbone = BackboneCard.read(folder), load_backbone(folder)
    assert card.blocks == (1, 2, 3, 4)
    assert (card.timesteps, card.intensity, card.recipe) == ((0,), "percentile", {"name": ""})
    assert (card.training["licence"], backbone.recipe.t_max) == ("apache-2.0", 0)
    assert "apache-2.0" in (folder / "README.md").read_text()

    from safetensors.torch import load_file

    saved = load_file(classifier / "model.safetensors")
    state = backbone.net.state_dict()
    encoder = {key.removeprefix("resnet."): value for key, value in saved.items() if key.startswith("resnet.")}
    assert all(torch.equal(state[f"encoder.model.{key}"], value) for key, value in encoder.items())
    assert backbone.net.config.mean == (0.5, 0.5, 0.4)
    maps = backbone.features(torch.rand(1, 3, 64, 96), 0, card.blocks)
    assert {block: tuple(values.shape) for block, values in maps.items()} == {
        1: (1, 8, 16, 24), 2: (1, 8, 8, 12), 3: (1, 16, 4, 6), 4: (1, 16, 2, 3)
    }  # fmt: skip
    x = torch.rand(1, 3, 64, 96)
    fine, coarse = (load_backbone(folder, bf16=bf16).features(x, 0, {2})[2].float() for bf16 in (False, True))
    assert 0 < (fine - coarse).norm() < 0.05 * fine.norm()
    with pytest.raises(BackboneError, match="already a backbone"):
        import_hub_model(str(classifier), name="mine")
    with pytest.raises(UsageError, match="maps 0"):
        import_hub_model(str(classifier), name="other", blocks=(7,))


def test_another_version_that_names_weights_otherwise(classifier):
    folder = import_hub_model(str(classifier), name="mine")
    tensors = {f"renamed.{key}": value for key, value in load_backbone(folder).net.state_dict().items()}
    card = json.loads((folder / "backbone.json").read_text())
    write_backbone(folder.parent / "renamed", tensors, card, "")
    with pytest.raises(CheckpointError, match="made with transformers"):
        load_backbone(folder.parent / "renamed")


def test_images_that_nobody_normalises(classifier):
    (classifier / "preprocessor_config.json").write_text('{"do_normalize": false}')
    assert load_backbone(import_hub_model(str(classifier), name="plain")).net.config.std == (1.0, 1.0, 1.0)


def _without_safetensors(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _without_config(folder):
    (folder / "config.json").unlink()


def _of_no_family(folder):
    (folder / "config.json").write_text('{"model_type": "bert"}')


def _of_unknown_family(folder):
    (folder / "config.json").write_text('{"model_type": "nosuch"}')


def _truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _of_another_shape(folder):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"depths": [2, 1, 1, 1]}))


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (_without_safetensors, CheckpointError, "pickled weights"),
        (_without_config, BackboneError, "no config.json"),
        (_of_no_family, BackboneError, "does not offer as a backbone"),
        (_of_unknown_family, BackboneError, "cannot read"),
        (_truncated, CheckpointError, "cannot be read"),
        (_of_another_shape, CheckpointError, "would be random"),
    ],
)
def test_models_that_cannot_be_used(classifier, spoil, error, words):
    spoil(classifier)
    with pytest.raises(error, match=words):
        import_hub_model(str(classifier), name="mine")


def test_without_a_network(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def refuse(*_, **__):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(BackboneError, match="hf download facebook/dinov2-small --local-dir FOLDER"):
        import_hub_model("facebook/dinov2-small", name="mine")
    monkeypatch.undo()
    with pytest.raises(BackboneError, match="no folder here and no id"):
        import_hub_model("no/such/folder", name="mine")


def test_fetched(classifier, monkeypatch, tmp_path):
    """By id: the folder in the library's cache is named by the commit, which the card remembers."""
    import huggingface_hub

    commit = classifier.rename(tmp_path / "0123abc")
    asked = {}

    def fetch(source, **how):
        asked.update(how, source=source)
        return str(commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    card = BackboneCard.read(import_hub_model("org/model", name="mine", revision="v1"))
    assert (card.training["source"], card.training["revision"]) == ("org/model", "0123abc")
    assert (asked["source"], asked["revision"]) == ("org/model", "v1")
    assert not any("bin" in pattern for pattern in asked["allow_patterns"])


def test_denoiser_network(classifier, tiny_backbone):
    import_hub_model(str(classifier), name="mine")
    for source in (str(classifier), "mine"):
        config, weights = denoiser_network(source, "tiny", frozen=True)
        assert (config.map_channels, config.mean, config.frozen_encoder) == ((8, 8, 8, 16, 16), (0.5, 0.5, 0.4), True)
        net = Denoiser(config)
        keys = net.load_state_dict(weights, strict=False)
        assert not keys.unexpected_keys
        assert not any(key.startswith("encoder.") for key in keys.missing_keys)
    config, weights = denoiser_network("", "1x", frozen=False, in_channels=1)
    assert (config.in_channels, config.out_channels, config.frozen_encoder, weights) == (1, 1, False, {})
    with pytest.raises(UsageError, match="tiny, 1x"):
        denoiser_network("", "huge", frozen=True)
    with pytest.raises(UsageError, match="--channels"):
        denoiser_network("", "tiny", frozen=True, in_channels=5)
    with pytest.raises(BackboneError, match="cannot be an encoder"):
        denoiser_network(str(tiny_backbone), "tiny", frozen=True)
    assert "--encoder" in hub_import.RANDOM_ENCODER
