"""Masks of MaskDM: the published counts, shapes, and whole batches at once."""

import json
from pathlib import Path

import pytest
import torch

from mdm_studio.diffusion.token_masks import token_mask
from mdm_studio.errors import UsageError

COUNTS = json.loads((Path(__file__).parent.parent / "golden" / "golden.json").read_text())["maskdm_masks"]
CASES = {
    "patch16_.5": ("patch", 16, 0.5, 4),
    "patch16_.9": ("patch", 16, 0.9, 4),
    "block4_16_.5": ("block", 16, 0.5, 4),
    "block4_64_.9": ("block", 64, 0.9, 4),
    "block4_64_.7": ("block", 64, 0.7, 4),
    "block2_16_.1": ("block", 16, 0.1, 2),
    "crop15_16": ("crop", 16, 0.1, 4),
    "crop11_16": ("crop", 16, 0.5, 4),
    "crop5_16": ("crop", 16, 0.9, 4),
}


def _mask(masking, grid, ratio, block=4, n=3, seed=0):
    return token_mask(masking, n, grid, ratio, torch.Generator().manual_seed(seed), block=block)


def test_every_published_count_is_here():
    assert CASES.keys() == COUNTS.keys()


@pytest.mark.parametrize("name", CASES)
def test_counts_agree_with_the_released_code(name):
    masking, side, ratio, block = CASES[name]
    hidden = _mask(masking, (side, side), ratio, block)
    assert [hidden.sum(1).tolist(), hidden.shape[1]] == [[COUNTS[name][0]] * 3, COUNTS[name][1]]
    assert not torch.equal(hidden[0], hidden[1])
    assert torch.equal(hidden, _mask(masking, (side, side), ratio, block))


def test_blocks_are_whole():
    blocks = _mask("block", (8, 12), 0.5).view(3, 2, 4, 3, 4)
    assert torch.equal(blocks.amin((2, 4)), blocks.amax((2, 4)))


def test_what_a_crop_leaves_is_a_rectangle():
    seen = ~_mask("crop", (16, 8), 0.75, n=400).view(400, 16, 8)
    for each in seen[:20]:
        rows, cols = each.any(1).nonzero()[:, 0], each.any(0).nonzero()[:, 0]
        assert (len(rows), len(cols)) == (8, 4)
        assert each[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1].all()
    assert seen.any(0).all()  # every place is seen in some image


def test_nothing_hidden():
    assert not any(_mask(masking, (8, 8), 0.0).any() for masking in ("patch", "block", "crop"))


@pytest.mark.parametrize(
    ("arguments", "words"), [(("patch", (8, 8), 1.0), "hidden patches is 1.0"), (("block", (6, 8), 0.5), "6 x 8")]
)
def test_impossible_masks_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        _mask(*arguments)
