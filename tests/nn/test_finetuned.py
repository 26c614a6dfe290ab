"""Logits read from blocks of any network."""

import torch
import torch.nn.functional as F

from mdm_studio.nn.finetuned import FineTuned, FineTunedConfig
from mdm_studio.nn.layers import NormStatistics
from mdm_studio.testing import golden_fill, golden_input

_INNER = {
    "kind": "unet", "model_channels": 32, "channel_mult": [1, 1], "num_res_blocks": 1, "middle_attention": False,
    "stem": 2, "norm_groups": 8,
}  # fmt: skip


def _net(blocks=(1, 3)):
    net = FineTuned(FineTunedConfig(3, 2, _INNER, blocks)).eval()
    golden_fill(net)
    for reader in net.readers.values():
        reader.scale.add_(2)
    return net


@torch.no_grad()
def test_logits_are_a_linear_layer_over_the_blocks_brought_to_one_size():
    net, x, t = _net(), golden_input((2, 3, 32, 48), 1), torch.full((2,), 50)
    found = net.features(x, t, (0,))[0]
    assert found.shape == (2, *net.config.block_shape(0)[:1], 16, 24)
    maps = net.inner.features(x, t, (1, 3))
    size = found.shape[2:]
    stacked = torch.cat([F.interpolate(maps[b], size=size, mode="bilinear", align_corners=False) for b in (1, 3)], dim=1)
    weight = torch.cat([net.readers[b].weight * net.readers[b].scale for b in ("1", "3")], dim=1)
    shift = torch.cat([net.readers[b].shift for b in ("1", "3")])
    wanted = torch.einsum("kc,bchw->bkhw", weight, stacked - shift[:, None, None]) + net.bias[:, None, None]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert net(x, t).shape == (2, 2, 32, 48)


@torch.no_grad()
def test_it_is_what_the_inner_network_is():
    """Its norms borrow statistics, its strides and channels are those of the inner one; in bfloat16 too logits are float32."""
    net, x, t = _net(), golden_input((1, 3, 32, 32), 2), torch.full((1,), 50)
    assert net.pools_norms
    assert net.own_bf16
    assert net.config.total_stride == net.inner.config.total_stride
    statistics = NormStatistics().rewind(recording=True)
    found = net.features(x, t, (0,), statistics=statistics)[0]
    lent = net.features(x, t, (0,), statistics=statistics.rewind(recording=False))[0]
    torch.testing.assert_close(found, lent)
    with torch.autocast("cpu", torch.bfloat16):
        assert net.features(x, t, (0,))[0].dtype == torch.float32
    assert FineTunedConfig.from_json({"in_channels": 3, "out_channels": 2, "inner": _INNER, "blocks": [1, 3]}) == net.config
