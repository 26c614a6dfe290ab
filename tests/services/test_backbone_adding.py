"""Backbones of others: what stands at a place, and how it becomes a backbone."""

import io
import json
import shutil
import sys
import time

import pytest

from mdm_studio.config import user_data_dir
from mdm_studio.errors import BackboneError, CheckpointError, MDMStudioError
from mdm_studio.services import backbone_adding
from mdm_studio.services.backbone_adding import Addition, add_backbone, add_here, checkpoint_networks, look_at


@pytest.fixture
def model(tmp_path):
    """Folder of a tiny model of `transformers`."""
    from transformers import ConvNextConfig, ConvNextModel

    folder = tmp_path / "tiny convnext"
    config = ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_stages=4, image_size=32)
    ConvNextModel(config).save_pretrained(folder)
    return folder


def test_what_stands_at_a_place(tmp_path, model, tiny_backbone):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "net.pt").touch()
    job = tmp_path / "my job"
    shutil.copytree(tiny_backbone, job / "backbone")
    kinds = {
        "": "",
        "facebook/dinov2-small": "hub",
        "resnet-50": "hub",
        "a/b/c": "",
        "no where": "",
        "missing.pt": "",
        str(tmp_path / "notes.txt"): "",
        str(tmp_path / "net.pt"): "checkpoint",
        str(tmp_path): "",
        str(model): "model",
        str(tiny_backbone): "backbone",
        str(job): "backbone",
    }
    assert {place: look_at(place).kind for place in kinds} == kinds
    assert look_at(str(model)).name == "tiny-convnext"
    assert look_at(str(job)).name == "my-job"
    assert look_at("x/mdm-nuclei").name == "mdm-nuclei-2"  # the bundled one has that name
    assert "neither a model" in look_at(str(tmp_path)).words


def test_a_model_a_backbone_and_a_checkpoint_are_added(tmp_path, model, tiny_backbone, monkeypatch):
    assert add_here(Addition(str(model), "convnext")) == "convnext"
    assert json.loads((user_data_dir() / "backbones/convnext/backbone.json").read_text())["arch"]["kind"] == "hub"
    assert add_here(Addition(str(tiny_backbone), "copy")) == "copy"
    with pytest.raises(BackboneError, match="there is a backbone 'copy' already"):
        add_here(Addition(str(tiny_backbone), "copy"))
    tried = []

    def import_checkpoint(path, *, name, arch):
        tried.append(arch)
        if arch != "base":
            raise CheckpointError(f"{path} does not fit this network (3 missing)")
        return user_data_dir() / "backbones" / name

    monkeypatch.setattr("mdm_studio.engine.checkpoint_import.import_checkpoint", import_checkpoint)
    monkeypatch.setattr(backbone_adding, "checkpoint_networks", lambda: ("small", "base", "adm-256"))
    (tmp_path / "net.pt").touch()
    assert add_here(Addition(str(tmp_path / "net.pt"), "net")) == "net"
    assert tried == ["small", "base"]
    monkeypatch.setattr(backbone_adding, "checkpoint_networks", lambda: ("small", "adm-256"))
    with pytest.raises(CheckpointError, match="fits none of the networks small, adm-256"):
        add_here(Addition(str(tmp_path / "net.pt"), "net"))


def test_a_checkpoint_may_be_of_the_papers_networks():
    assert {"small", "mdm-192", "adm-256"} <= set(checkpoint_networks())


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [("facebook/x", "a/b", "no name for a backbone"), ("facebook/x", " ", "no name"), ("no where", "a", "There is nothing at")],
)
def test_what_cannot_be_added_is_refused_in_words(source, name, words):
    with pytest.raises(MDMStudioError, match=words):
        add_here(Addition(source, name))


def test_a_process_of_its_own_adds_it_and_can_be_stopped(monkeypatch):
    monkeypatch.setattr(backbone_adding, "_COMMAND", (sys.executable, "-c", "import time; time.sleep(60)"))
    begin = time.monotonic()
    assert add_backbone(Addition("a/b", "b"), lambda: time.monotonic() > begin + 0.2) is None
    assert time.monotonic() - begin < 5
    for code, words in (("print('{\"error\": \"no network\"}')", "no network"), ("raise ValueError('odd')", "ValueError: odd")):
        monkeypatch.setattr(backbone_adding, "_COMMAND", (sys.executable, "-c", code))
        with pytest.raises(BackboneError, match=words):
            add_backbone(Addition("a/b", "b"))
    monkeypatch.setattr(backbone_adding, "_COMMAND", (sys.executable, "-c", "print('{\"name\": \"b\"}')"))
    assert add_backbone(Addition("a/b", "b")) == "b"


def test_the_process_answers_in_words(monkeypatch, tiny_backbone):
    for name, answer in (("mine", {"name": "mine"}), ("a/b", "no name")):
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"source": str(tiny_backbone), "name": name, "network": ""})))
        monkeypatch.setattr(sys, "stdout", said := io.StringIO())
        backbone_adding.main()
        found = json.loads(said.getvalue())
        assert found == answer or answer in found["error"]
