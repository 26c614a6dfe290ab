"""Backbones in words: what each is, and why one cannot be used."""

import json
import shutil

from mdm_studio.config import user_data_dir
from mdm_studio.services.backbone_list import BackboneFacts, backbone_facts, list_backbones


def test_facts_of_what_is_there_and_problems_of_what_cannot_be_used(tiny_backbone, tokens_backbone):
    root = user_data_dir() / "backbones"
    changes = {
        "mine": {},
        "unknown-kind": {"arch": {"kind": "ghost"}},
        "unknown-recipe": {"recipe": {"name": "ghost"}},
        "other-settings": {"recipe": {"name": "mdm", "ghost": 1}},
        "no-arch": {"arch": []},
    }
    for name, change in changes.items():
        shutil.copytree(tiny_backbone, root / name)
        card = json.loads((root / name / "backbone.json").read_text())
        (root / name / "backbone.json").write_text(json.dumps(card | change))
    found = {facts.name: facts for facts in list_backbones()}
    assert found["mine"].label == "mine \N{EN DASH} UNet, mdm"
    assert (found["mine"].t_max, found["mine"].has_timesteps, found["mine"].in_channels) == (1000, True, 3)
    for name in list(changes)[1:]:
        assert found[name].problem, name
        assert found[name].label == f"{name} \N{EN DASH} cannot be used"
    assert "ghost" in found["unknown-kind"].problem
    assert found["mdm-nuclei"].problem is None
    facts = backbone_facts("tokens", tokens_backbone)
    assert (facts.what, facts.t_max, len(facts.blocks)) == ("ViT, mae", 0, 13)
    assert facts.blocks_words.startswith("Blocks, from 0 (first).")


def test_networks_without_timesteps_or_recipe():
    facts = BackboneFacts("dino", kind="hub", family="dinov2", recipe={"name": ""}, t_max=0)
    assert facts.what == "Hugging Face dinov2"
    assert not facts.has_timesteps
    assert BackboneFacts("listed soon").has_timesteps  # until it is known
    assert BackboneFacts("listed soon").label == "listed soon"
