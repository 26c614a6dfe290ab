"""Recipes in words: ours, those of others, their settings, and what a training may begin with."""

from dataclasses import dataclass
from typing import Literal

import pytest

from mdm_studio import registry
from mdm_studio.engine.recipes import Recipe
from mdm_studio.services.backbone_list import BackboneFacts
from mdm_studio.services.recipe_list import (
    RecipeFacts,
    SettingFacts,
    fitting_starts,
    list_recipes,
    may_be_second_stage,
    recipe_facts,
    second_stage,
    settings_of,
)


@dataclass(frozen=True)
class Blurred(Recipe):
    """Restores what was blurred.

    More about it.

    Attributes
    ----------
    sigma, limit : float
        Width of the blur, and
        the largest one, see `blur`.
    kind : {"box", "gauss"}
        Shape of it.
    parts : tuple of int
        Cannot be shown.

    Notes
    -----
    none : here
    """

    sigma: float = 2.0
    limit: float = 1e-5
    kind: Literal["box", "gauss"] = "gauss"
    parts: tuple[int, ...] = ()
    strict: bool = True
    t_max: int = 10


def test_settings_are_those_that_a_form_can_show():
    found = {each.name: each for each in settings_of(Blurred)}
    assert list(found) == ["sigma", "limit", "kind", "strict"]
    assert found["sigma"].words == found["limit"].words == "Width of the blur, and the largest one, see blur."
    assert (found["kind"].kind, found["kind"].choices, found["kind"].words) == ("choice", ("box", "gauss"), "Shape of it.")
    assert (found["strict"].kind, found["strict"].title) == ("bool", "Strict")


def test_a_recipe_of_somebody_else_is_listed_with_its_own_words(monkeypatch):
    load = registry.load
    monkeypatch.setattr(registry, "names", lambda group: ["absent", "blurred", "mdm"])
    monkeypatch.setattr(registry, "load", lambda group, name: Blurred if name == "blurred" else load(group, name))
    mdm, blurred = list_recipes()
    assert (mdm.name, blurred.name) == ("mdm", "blurred")  # one that cannot be loaded is left out
    assert blurred.label == "blurred: restores what was blurred"
    assert (blurred.network, next(iter(blurred.sizes)), blurred.t_max) == ("unet", "small", 10)


@pytest.mark.parametrize("name", registry.names("recipes"))
def test_ours_say_what_they_are_and_every_setting_is_explained(name):
    facts = recipe_facts(name)
    assert facts.title
    assert facts.words
    assert facts.sizes
    for setting in facts.settings:
        assert setting.words, (name, setting.name)
    assert facts.wants_encoder == (name in ("dep", "ddep"))


def test_only_what_is_of_the_right_kind_and_differs_is_kept():
    facts = RecipeFacts("blurred", settings=settings_of(Blurred))
    values = {"sigma": 3, "limit": "much", "kind": "round", "strict": False, "unknown": 1}
    assert facts.own(values) == {"sigma": 3, "strict": False}
    assert facts.own({"sigma": 2.0, "kind": "gauss", "strict": 1}) == {}


def test_a_training_begins_with_networks_of_its_kind():
    backbones = (
        BackboneFacts("nuclei", kind="unet", in_channels=3),
        BackboneFacts("five", kind="unet", in_channels=5),
        BackboneFacts("vit", kind="uvit", in_channels=3),
        BackboneFacts("broken", kind="unet", problem="damaged"),
    )
    recipe = RecipeFacts("mdm", network="unet")
    assert [each.name for each in fitting_starts(backbones, recipe)] == ["nuclei", "five"]
    assert [each.name for each in fitting_starts(backbones, recipe, 5)] == ["five"]


def test_a_second_stage_follows_a_first_one():
    recipe = RecipeFacts("maskdm", network="uvit", settings=(SettingFacts("ratio", "float", 0.9),))
    first = BackboneFacts("a", kind="uvit", recipe={"name": "maskdm", "ratio": 0.5, "patch": 4, "t_max": 1000})
    assert may_be_second_stage(recipe, first)
    assert second_stage(first) == {"ratio": 0.0, "patch": 4}
    assert may_be_second_stage(recipe, BackboneFacts("b", recipe={"name": "maskdm"}))  # the usual ratio
    for other in ({"name": "maskdm", "ratio": 0.0}, {"name": "mae"}, {}):
        assert not may_be_second_stage(recipe, BackboneFacts("c", recipe=other))
    assert not may_be_second_stage(recipe, None)
    assert not may_be_second_stage(RecipeFacts("mae"), first)
