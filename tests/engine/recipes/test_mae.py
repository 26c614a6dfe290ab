"""The MAE recipe: how much is hidden, what is wanted, where it is judged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mdm_studio.diffusion.corruptions import patch_mask
from mdm_studio.engine.recipes.mae import MAE
from mdm_studio.errors import UsageError
from mdm_studio.nn.patches import from_patches, to_patches
from mdm_studio.testing import golden_input

GOLDEN = Path(__file__).parent.parent.parent / "golden" / "golden.npz"


def _example(recipe, x, seed=0):
    return recipe.corrupt(x, torch.zeros(len(x)), torch.Generator().manual_seed(seed))


def test_mask_and_loss_agree_with_the_published_code():
    golden = np.load(GOLDEN)
    hidden = patch_mask(golden_input((2, 16), 14), torch.tensor([12, 12]))
    assert np.array_equal(hidden, golden["mae_mask"].astype(bool))
    example = replace(_example(MAE(), golden_input((2, 3, 32, 32), 15)), hidden=hidden)
    losses = MAE().loss(torch.from_numpy(golden["mae_pred"]), example)
    assert losses.shape == (2,)
    assert losses.mean().item() == pytest.approx(float(golden["mae_loss"]), rel=1e-6)


@pytest.mark.parametrize(("ratio", "shown"), [(0.75, 16), (0.5, 32), (0.9, 6)])
def test_the_same_share_is_hidden_in_every_image(ratio, shown):
    x = golden_input((3, 3, 64, 64), 6) + 2  # nowhere zero
    example = _example(MAE(ratio=ratio), x)
    assert (~example.hidden).sum(1).tolist() == [shown] * 3
    assert (example.seen != 0).sum().item() == 3 * shown * 8 * 8 * 3
    assert not torch.equal(example.hidden[0], example.hidden[1])
    assert torch.equal(example.hidden, _example(MAE(ratio=ratio), x).hidden)


def test_only_hidden_patches_are_judged():
    recipe = MAE()
    example = _example(recipe, golden_input((2, 3, 32, 32), 6))
    wrong = torch.where(example.hidden[:, :, None], example.target, example.target + 5)
    assert recipe.loss(wrong, example).max() == 0
    assert recipe.loss(example.target + 1, example).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("normalise", [True, False])
def test_what_is_restored_is_the_image_with_the_predicted_patches(normalise):
    recipe = MAE(normalise=normalise)
    x = golden_input((2, 3, 32, 32), 6).clamp(-1, 1)
    example = _example(recipe, x)
    torch.testing.assert_close(recipe.restored(example.target, example), x, rtol=0, atol=1e-5)
    places = from_patches(example.hidden[:, :, None].expand(-1, -1, 192), 8, 32, 32)
    made = recipe.restored(torch.zeros_like(example.target), example)
    assert torch.equal(made[~places], x[~places])
    patch = to_patches(made, 8)[example.hidden][0]  # nothing predicted: the mean of the patch, or mid-grey
    expected = to_patches(x, 8)[example.hidden][0].mean() if normalise else torch.tensor(0.0)
    torch.testing.assert_close(patch, expected.expand(192), rtol=0, atol=1e-5)


def test_settings_that_cannot_be():
    with pytest.raises(UsageError, match="between 0 and 1"):
        MAE(ratio=1.0)
    with pytest.raises(UsageError, match="of 1 patches 1 would be hidden"):
        _example(MAE(), golden_input((1, 3, 8, 8), 6))
    with pytest.raises(UsageError, match="patch of the network"):
        MAE().loss(torch.zeros(1, 4, 768), _example(MAE(), golden_input((1, 3, 32, 32), 6)))
