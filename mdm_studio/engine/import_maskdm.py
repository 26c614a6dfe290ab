"""State dicts of MaskDM's training script, with the names that our U-ViT has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_AVERAGED = "ema_model."


def averaged_weights(state: dict[str, Any]) -> dict[str, Any]:
    """Averaged weights in a checkpoint that keeps both kinds, as MaskDM evaluates them; else `state` as it is."""
    both = state.get("ema")
    found = {} if not isinstance(both, dict) else {k: v for k, v in both.items() if str(k).startswith(_AVERAGED)}
    return {name.removeprefix(_AVERAGED): value for name, value in found.items()} or state


def network_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the network alone, without the diffusion's tables beside them; biases of attention in one piece.

    A state dict of anything else comes back as it is.
    """
    if any(name.startswith("model.") for name in state):  # tables of the wrapper have plain names: betas, alphas_cumprod, ...
        state = {name.removeprefix("model."): value for name, value in state.items() if "." in name}
    joined = dict(state)
    for name in state:
        stem = name.removesuffix("q_bias")
        if stem != name and f"{stem}v_bias" in state:  # keys have no bias
            q, v = joined.pop(name), joined.pop(f"{stem}v_bias")
            joined[f"{stem}qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
    return joined
