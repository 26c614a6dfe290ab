"""The MDM recipe: what is hidden, what is wanted, one loss a sample."""

import pytest
import torch

from mdm_studio.engine.recipes.mdm import MDM
from mdm_studio.testing import golden_input


@pytest.mark.parametrize(("rounding", "hidden"), [("paper", 15), ("released", 16)])
def test_share_of_hidden_patches(rounding, hidden):
    x = golden_input((2, 3, 64, 64), 6) + 2  # nowhere zero
    recipe = MDM(rounding=rounding)
    seen, target = recipe.corrupt(x, torch.tensor([250, 0]), torch.Generator().manual_seed(0))
    assert target is x
    assert (seen[0] == 0).sum().item() == hidden * 8 * 8 * 3
    assert torch.equal(seen[1], x[1])


def test_masks_depend_on_the_generator_alone():
    x, t = golden_input((2, 3, 64, 64), 6), torch.tensor([500, 900])
    first, second = (MDM().corrupt(x, t, torch.Generator().manual_seed(seed))[0] for seed in (1, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, MDM().corrupt(x, t, torch.Generator().manual_seed(2))[0])


def test_one_loss_a_sample_and_features_of_the_whole_image():
    x = golden_input((2, 3, 32, 32), 6).clamp(-1, 1)
    assert MDM().loss(x, x).shape == (2,)
    assert MDM().loss(x, x).max() < 1e-6
    assert MDM().out_channels(5) == 5
    assert torch.equal(MDM().feature_input(x, 500), x)
