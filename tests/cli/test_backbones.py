"""Published checkpoints become backbones; backbones are listed, shown and removed."""

import json

import pytest
import torch

from mdm_studio.engine.backbones import load_backbone
from mdm_studio.engine.recipes import Place
from mdm_studio.nn.unet import UNet, UNetConfig
from mdm_studio.testing import golden_fill

OPTIONS = [
    "--option", "model_channels=32", "--option", "channel_mult=(1,2)", "--option", "attention_ds=(2,)",
    "--option", "num_head_channels=16", "--option", "stem=1", "--option", "out_channels=6", "--option", "norm_groups=32",
    "--option", "middle_attention=True", "--option", "num_res_blocks=2",
]  # fmt: skip
CONFIG = UNetConfig(
    model_channels=32, channel_mult=(1, 2), attention_ds=(2,), num_head_channels=16, out_channels=6, num_res_blocks=2
)


@pytest.fixture
def state():
    net = UNet(CONFIG)
    golden_fill(net)
    return net.state_dict()


@pytest.mark.parametrize("wrapper", ["plain", "module.", "nested", "safetensors"])
def test_import(run, state, tmp_path, wrapper):
    path = tmp_path / "model.pt"
    if wrapper == "module.":
        torch.save({f"module.{name}": value for name, value in state.items()}, path)
    elif wrapper == "nested":
        torch.save({"epoch": 3, "state_dict": state}, path)
    elif wrapper == "safetensors":
        from safetensors.torch import save_file

        path = tmp_path / "model.safetensors"
        save_file(state, path)
    else:
        torch.save(state, path)
    outcome = run(
        "backbones", "import", path, "--arch", "small", "--name", "mine", *OPTIONS, "--blocks", "2-3", "--timesteps", "50,150"
    )
    assert outcome.code == 0, outcome.error
    facts = json.loads(run("backbones", "info", "mine", "--json").stdout)
    assert (facts["default_blocks"], facts["default_timesteps"], facts["intensity"]) == ([2, 3], [50, 150], "range")
    backbone = load_backbone(__import__("pathlib").Path(facts["folder"]))
    assert all(torch.equal(value, state[name]) for name, value in backbone.net.state_dict().items())
    assert facts["recipe"]["name"] == "ddpm"  # six channels: noise and variance
    assert facts["recipe"]["learn_sigma"]
    x = torch.rand(1, 3, 32, 32)
    expected = UNet(CONFIG).eval()
    expected.load_state_dict(state)
    with torch.no_grad():
        seen = backbone.recipe.feature_input(x, 50, [Place()])
        found, wanted = backbone.features(x, 50, {3})[3], expected.features(seen, torch.tensor([50]), {3})[3]
    # PyTorch takes the variance of a channels-last group norm in one pass; these weights make means far above the spread
    assert (found - wanted).norm() <= 1e-3 * wanted.norm()


def test_differing_keys_are_listed(run, state, tmp_path):
    del state["out.0.weight"]
    state["extra.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "model.pt")
    outcome = run("backbones", "import", tmp_path / "model.pt", "--arch", "small", "--name", "mine", *OPTIONS)
    assert outcome.code == 1
    assert "1 missing: out.0.weight" in outcome.error
    assert "1 unknown: extra.weight" in outcome.error


def test_other_shapes_are_listed(run, state, tmp_path):
    torch.save(state, tmp_path / "model.pt")
    outcome = run(
        "backbones",
        "import",
        tmp_path / "model.pt",
        "--arch",
        "small",
        "--name",
        "mine",
        *OPTIONS,
        "--option",
        "out_channels=3",
    )
    assert "out.2.bias is (6,), wanted (3,)" in outcome.error


@pytest.mark.parametrize(
    "wrong", [["--arch", "huge"], ["--arch", "small", "--option", "colour=1"], ["--arch", "small", "--option", "x"]]
)
def test_wrong_architecture(run, state, tmp_path, wrong):
    torch.save(state, tmp_path / "model.pt")
    assert run("backbones", "import", tmp_path / "model.pt", "--name", "mine", *wrong).code == 2


def test_list_and_remove(run, state, tmp_path):
    torch.save(state, tmp_path / "model.pt")
    command = ["backbones", "import", tmp_path / "model.pt", "--arch", "small", "--name", "mine", *OPTIONS]
    assert run(*command).code == 0
    again = run(*command)
    assert (again.code, "remove it first" in again.error) == (1, True)
    listed = {row["name"]: row for row in json.loads(run("backbones", "list", "--json").stdout)}
    assert not listed["mine"]["bundled"]
    assert listed["mdm-nuclei"]["bundled"]
    assert "mine" in run("backbones").stdout
    assert run("backbones", "remove", "mine").code == 0
    assert run("backbones", "info", "mine").code == 1


def test_a_model_of_hugging_face(run, tmp_path):
    """From a folder, as after `hf download`; whoever looks at it sees its maps and the licence."""
    from transformers import ConvNextBackbone, ConvNextConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = tmp_path / "convnext-tiny"
    ConvNextBackbone(ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1])).save_pretrained(model)
    (model / "README.md").write_text("---\nlicense: mit\n---\n")
    command = ["backbones", "import", model, "--arch", "transformers", "--name", "mine"]
    assert run(*command, "--timesteps", "50").code == 2
    assert run(*command, "--blocks", "1-3").code == 0
    shown = run("backbones", "info", "mine").stdout
    assert "3 stage3" in shown
    assert "licence of the weights: mit" in shown
    facts = json.loads(run("backbones", "info", "mine", "--json").stdout)
    assert (facts["default_blocks"], facts["default_timesteps"], facts["intensity"]) == ([1, 2, 3], [0], "percentile")
    assert run("backbones", "import", model, "--arch", "small", "--name", "other", "--revision", "main").code == 2


def test_the_bundled_backbone_stays(run):
    outcome = run("backbones", "remove", "mdm-nuclei")
    assert outcome.code == 1
    outcome = run("backbones", "info", "mdm-nuclei")
    assert outcome.code == 0
    assert "the image binned by 1, and the classical filters" in outcome.stdout


@pytest.mark.parametrize("name", ["../x", ".", "a/b", "con"])
def test_a_name_that_is_no_name_of_a_folder(run, state, tmp_path, name):
    torch.save(state, tmp_path / "model.pt")
    outcome = run("backbones", "import", tmp_path / "model.pt", "--arch", "small", "--name", name, *OPTIONS)
    assert outcome.code == 2
    assert "cannot be the name of a backbone" in outcome.error
    outcome = run("pretrain", tmp_path, "--background", "--steps", "1", "--name", name)
    assert outcome.code == 2
    assert "cannot be the name of a backbone" in outcome.error
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_one_damaged_backbone_is_one_line_of_the_list(run):
    from mdm_studio.config import user_data_dir

    bad = user_data_dir() / "backbones" / "bad"
    bad.mkdir(parents=True)
    (bad / "backbone.json").write_text("[]")
    rows = json.loads(run("backbones", "list", "--json").stdout)
    assert [row["name"] for row in rows if "problem" in row] == ["bad"]
    listed = run("backbones", "list").stdout
    assert "mdm-nuclei" in listed
    assert "is damaged (Expected `object`, got `array`)" in listed
    assert run("backbones", "info", "bad").code == 1
    assert run("backbones", "remove", "bad").code == 0
