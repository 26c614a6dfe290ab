"""Recipes are found through entry points."""

import pytest

from mdm_studio import registry
from mdm_studio.errors import UsageError


def test_ours_come_in_by_the_same_door():
    from mdm_studio.engine.recipes.mdm import MDM

    assert "mdm" in registry.names("recipes")
    assert registry.load("recipes", "mdm") is MDM


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"no recipe called 'soup'; choose one of: .*mdm"):
        registry.load("recipes", "soup")
