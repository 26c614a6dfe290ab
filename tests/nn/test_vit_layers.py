"""Attention by either way."""

import torch

from mdm_studio.nn.vit_layers import Attention


def test_attention_written_out_for_bfloat16_is_the_same():
    layer = Attention(64, 4)
    x = torch.randn(2, 33, 64)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        short = layer(x)
    assert (short - exact).norm() <= 0.02 * exact.norm()
