"""``mdm-studio sample`` as a user calls it."""

import dataclasses
import json

import pytest

from mdm_studio.engine.backbones import untrained_backbone
from mdm_studio.io.backbone_files import write_backbone
from mdm_studio.nn.unet import UNetConfig


@pytest.fixture
def ddpm(tmp_path):
    config = UNetConfig(model_channels=32, channel_mult=(1, 1), num_res_blocks=1, middle_attention=False, stem=2, norm_groups=8)
    card = {"name": "noisy", "arch": {"kind": "unet", **dataclasses.asdict(config)}, "recipe": {"name": "ddpm"}}
    write_backbone(tmp_path / "ddpm", untrained_backbone(config).net.state_dict(), card, "# noisy\n")
    return tmp_path / "ddpm"


def test_pictures_and_json(run, ddpm, tmp_path):
    outcome = run("sample", ddpm, "-n", 2, "--out", tmp_path / "o", "--steps", 2, "--size", "16", "--json")
    assert outcome.code == 0
    found = json.loads(outcome.stdout)
    assert [path.split("/")[-1] for path in found["files"]] == ["sample-0001.png", "sample-0002.png"]
    assert "2 pictures" in outcome.stderr
    assert run("sample", ddpm, "--out", tmp_path / "o").code == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "a,b"], "--size"),
        (["--size", "17"], "multiples of 4"),
        (["--sampler", "euler"], "ddim or ancestral"),
        (["--steps", "2000"], "1 to 1000"),
        (["--precision", "fp8"], "fp32 or bf16"),
    ],
)
def test_wrong_options(run, ddpm, tmp_path, options, words):
    outcome = run("sample", ddpm, "--out", tmp_path / "o", *options)
    assert outcome.code == 2
    assert words in outcome.error
    assert not (tmp_path / "o").exists()


def test_a_backbone_that_makes_no_pictures(run, tiny_backbone, tmp_path):
    outcome = run("sample", tiny_backbone, "--out", tmp_path / "o")
    assert outcome.code == 2
    assert "restores hidden patches" in outcome.error
