"""Layers of vision transformers, named as in the checkpoints of MAE and U-ViT."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SHORT = 512  # tokens; all pairs of more take memory


class Attention(nn.Module):
    """Multi-head self-attention over tokens ``(B, T, C)``."""

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape of ``(B, T, C)``."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, nh, T, hs)
        out: Tensor = self.proj(_attend(q, k, v).transpose(1, 2).flatten(2))  # (B, T, C)
        return out


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over ``(B, nh, T, hs)``, written out where PyTorch's own is 2 to 5 times slower: few tokens, bfloat16, CPU."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= _SHORT:
        scores = (q * q.shape[3] ** -0.5) @ k.mT  # (B, nh, T, T)
        out: Tensor = scores.float().softmax(-1).to(v.dtype) @ v
        return out
    return F.scaled_dot_product_attention(q, k, v)


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape of ``(B, T, C)``."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class ViTBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, *, mlp_ratio: float = 4.0, qkv_bias: bool = True, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape of ``(B, T, C)``."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out
