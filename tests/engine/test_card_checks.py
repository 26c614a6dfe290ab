"""Cards and jobs that ask for networks nobody can hold."""

import dataclasses
import json

import pytest

from mdm_studio.engine.backbones import BackboneCard, describe, find_by_digest, free_folder, load_backbone, remove_backbone
from mdm_studio.engine.card_checks import check_network
from mdm_studio.errors import BackboneError, CheckpointError, UsageError
from mdm_studio.io.backbone_files import WEIGHTS, file_digest
from mdm_studio.io.checkpoints import read_checkpoint, write_checkpoint
from mdm_studio.nn.mae import MAEConfig
from mdm_studio.nn.unet import UNetConfig
from mdm_studio.services.backbone_list import describe_all, list_backbones


@pytest.fixture
def backbone(tiny_backbone, tmp_path, monkeypatch):
    """A backbone of the user's to spoil."""
    import shutil

    monkeypatch.setenv("MDM_STUDIO_DATA", str(tmp_path))
    return shutil.copytree(tiny_backbone, tmp_path / "backbones" / "bad")


def _change(backbone, change):
    path = backbone / "backbone.json"
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card["arch"].update(num_res_blocks=10**9),
        lambda card: card["arch"].update(model_channels=10**9),
        lambda card: card["arch"].update(channel_mult=[1e300, 1]),
        lambda card: card["arch"].update(channel_mult=[1] * 10**5),
        lambda card: card["arch"].update(channel_mult=[]),
        lambda card: card["arch"].update(channel_mult="many"),
        lambda card: card["arch"].update(stem=-1),
        lambda card: card["arch"].update(dropout=float("nan")),
        lambda card: card["arch"].update(kind=["unet"]),
        lambda card: card["arch"].update(kind="nothing"),
        lambda card: card.update(arch=3),
        lambda card: card.update(recipe={"name": "mdm", "patch": "wide"}),
        lambda card: card.update(recipe={"name": 3}),
        lambda card: card.update(blocks=[99]),
        lambda card: card.update(blocks=10**9),
        lambda card: card.update(scales=[]),
        lambda card: card.update(tile=10**9),
        lambda card: card.update(format="one"),
        lambda card: card.pop("digest"),
    ],
)
def test_a_card_that_makes_no_sense_is_one_bad_entry(backbone, change):
    _change(backbone, change)
    rows = {row["name"]: row for row in describe_all()}
    assert "mdm-nuclei" in rows
    facts = {each.name: each for each in list_backbones()}
    assert facts["mdm-nuclei"].problem is None
    with pytest.raises(BackboneError) as caught:
        load_backbone(backbone)
    assert "\n" not in str(caught.value)
    assert rows["bad"]["problem"]
    assert facts["bad"].problem
    with pytest.raises(BackboneError, match="is not here"):
        find_by_digest("0" * 32, "bad")  # others are looked for all the same


@pytest.mark.parametrize("root", ["[]", "null", "3", "{", "", "[" * 100_000])
def test_a_card_whose_root_is_no_object(backbone, root):
    (backbone / "backbone.json").write_text(root)
    with pytest.raises(BackboneError, match=r"backbone\.json is damaged"):
        describe(backbone)
    assert {row["name"]: "problem" in row for row in describe_all()} == {"bad": True, "mdm-nuclei": False}
    remove_backbone("bad")
    assert not backbone.exists()


def _spoil(backbone, change):
    tensors, _ = read_checkpoint(backbone / WEIGHTS)
    name = next(name for name, value in tensors.items() if value.ndim > 1)
    tensors[name] = change(tensors[name])
    write_checkpoint(backbone / WEIGHTS, tensors, {})
    _change(backbone, lambda card: card.update(digest=file_digest(backbone / WEIGHTS)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: value * float("nan"), "not finite in 1 of its tensors"),
        (lambda value: value.long(), "int64"),
        (lambda value: value[:1], "of another shape"),
    ],
)
def test_weights_that_are_none(backbone, change, words):
    _spoil(backbone, change)
    with pytest.raises(CheckpointError, match=words):
        load_backbone(backbone)


def test_a_network_that_cannot_be_built(backbone):
    _change(backbone, lambda card: card["arch"].update(norm_groups=0))
    with pytest.raises(BackboneError, match="the card of tiny is of a network that cannot be built"):
        load_backbone(backbone)


@pytest.mark.parametrize("how", ["missing", "folder", "pipe", "empty"])
def test_weights_that_are_no_file(backbone, how):
    import os

    path = backbone / WEIGHTS
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "empty":
        path.touch()
    with pytest.raises(BackboneError):
        load_backbone(backbone)
    list_backbones()


@pytest.mark.parametrize(
    "config",
    [
        MAEConfig(image_size=1 << 16, patch=1),
        UNetConfig(num_res_blocks=10**6),
        UNetConfig(model_channels=0),
        dataclasses.replace(MAEConfig(), depth=10**6),
    ],
)
def test_networks_that_no_machine_holds(config):
    with pytest.raises(BackboneError, match="the card is of a network that cannot be"):
        check_network(config, "the card")


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "..", ".x", "a/b", "a\nb", ""])
def test_a_backbone_is_made_nowhere_else(name):
    with pytest.raises(UsageError, match="cannot be the name of a backbone"):
        free_folder(name)


def test_every_network_that_we_offer_is_possible(backbone):
    from mdm_studio import registry

    for kind in registry.names("backbones"):
        for name, config in registry.load("backbones", kind).sizes.items():
            if config.n_blocks:  # an encoder's is known once there is one
                check_network(config, name)
    assert BackboneCard.read(backbone).blocks == (1, 2, 3)
