"""An ensemble of small MLPs that classifies pixels by their features: one stack of weights, applied before upsampling.

The published way (DatasetGAN; Baranchuk et al. 2022) upsamples every feature map to the image, concatenates them and calls one
MLP after another on each pixel. Two facts give the same numbers for a small part of the work and of the memory:

* bilinear upsampling and the first linear layer are both linear, so they commute, and bilinear weights sum to one, so the bias
  may stand on either side: the first layer runs on each map's own cells, and only its hidden units are upsampled and summed;
* in evaluation a batch norm is an affine map, and it stands after the ReLU, so it goes into the next layer's weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mdm_studio.errors import UsageError

MANY_CLASSES = 30  # from here on the wider MLP (Baranchuk et al. 2022, released code; DatasetGAN: 32)
_INIT_STD = 0.02  # normal weights, zero biases, as both papers
_BLOCK_BYTES = 128 << 20  # cells of all maps and a member's hidden units: 256 x 256 at the papers' sizes is one block
_BLOCK_WIDTH = 1024  # pixels; wide enough for the halo cells to cost little
_CHUNK_BYTES = 2 << 20  # one member's hidden units at pixels: stays near the core, and malloc does not give it back each time
_COARSE = 2  # from larger strides on, rows are interpolated before columns (measured)
# oneDNN's linear layer with the ReLU done on the way, which PyTorch's own compiler emits; absent from builds without oneDNN
_FUSED_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


@dataclass(frozen=True)
class FeatureMap:
    """A feature map, or the part of one that a window of the image reads.

    Attributes
    ----------
    values : Tensor
        ``(C, h, w)``, any floating dtype.
    stride : int
        Image pixels a cell, in both directions.
    origin : tuple of int
        Row and column of ``values[:, 0, 0]`` in the whole map, in cells.
    full : tuple of int
        Height and width of the whole map in cells: where upsampling repeats the edge, and nowhere else.
    """

    values: Tensor
    stride: int
    origin: tuple[int, int]
    full: tuple[int, int]


def hidden_sizes(n_classes: int) -> tuple[int, int]:
    """Widths of the two hidden layers, as published: ``(128, 32)``, or ``(256, 128)`` from 30 classes on."""
    return (128, 32) if n_classes < MANY_CLASSES else (256, 128)


class StackedLinear(nn.Module):
    """A linear layer for each member: ``weight`` ``(E, out, in)``, ``bias`` ``(E, out)``."""

    def __init__(self, members: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(members, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(members, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(E, in, N)``, or ``(in, N)`` for all members alike, to ``(E, out, N)``."""
        if x.ndim == 2:  # one product instead of E
            out = torch.addmm(self.bias.flatten()[:, None], self.weight.flatten(0, 1), x)  # (E*out, N)
            return out.view(*self.bias.shape, -1)
        return torch.baddbmm(self.bias[:, :, None], self.weight, x)


class StackedNorm(nn.Module):
    """A batch norm for each member, as `torch.nn.BatchNorm1d`; all tensors are ``(E, F)``."""

    momentum, eps = 0.1, 1e-5  # PyTorch's own, which the papers left as they are
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, members: int, features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, features))
        self.bias = nn.Parameter(torch.zeros(members, features))
        self.register_buffer("running_mean", torch.zeros(members, features))
        self.register_buffer("running_var", torch.ones(members, features))

    def forward(self, x: Tensor) -> Tensor:
        """``(E, F, N)`` to the same: members and features are one channel axis to PyTorch."""
        mean, var = self.running_mean.flatten(), self.running_var.flatten()  # views: updated in place
        flat = x.flatten(0, 1)[None]  # (1, E*F, N)
        out = F.batch_norm(flat, mean, var, self.weight.flatten(), self.bias.flatten(), self.training, self.momentum, self.eps)
        return out.view(*self.weight.shape, -1)

    def affine(self, member: int) -> tuple[Tensor, Tensor]:
        """Gain and offset of a member in evaluation, each ``(F,)``."""
        gain = self.weight[member] / torch.sqrt(self.running_var[member] + self.eps)
        return gain, self.bias[member] - self.running_mean[member] * gain


@dataclass(frozen=True)
class FoldedMember:
    """One member in evaluation as three linear layers with ReLU between them: ``weight`` ``(out, in)``, ``bias`` ``(out,)``."""

    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor
    weight3: Tensor
    bias3: Tensor


class PixelMLPEnsemble(nn.Module):
    """E MLPs of two hidden layers; each layer is linear, ReLU, batch norm (in this order, as published), the last only linear.

    Attributes
    ----------
    dims, n_classes, members : int
        D, K and E.
    hidden : tuple of int
        Widths of the two hidden layers; `hidden_sizes` gives the published ones.
    shift, scale : Tensor
        ``(D,)``: features enter the first layer as ``(x - shift) * scale``. Identity until set from training pixels.

    Notes
    -----
    Weights are zero until `reset` draws them or a state dict is loaded.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, dims: int, n_classes: int, *, members: int, hidden: tuple[int, int]):
        super().__init__()
        self.dims, self.n_classes, self.members, self.hidden = dims, n_classes, members, hidden
        self.linear1 = StackedLinear(members, dims, hidden[0])
        self.norm1 = StackedNorm(members, hidden[0])
        self.linear2 = StackedLinear(members, hidden[0], hidden[1])
        self.norm2 = StackedNorm(members, hidden[1])
        self.linear3 = StackedLinear(members, hidden[1], n_classes)
        self.register_buffer("shift", torch.zeros(dims))
        self.register_buffer("scale", torch.ones(dims))

    @torch.no_grad()
    def reset(self, seeds: Sequence[int]) -> PixelMLPEnsemble:
        """Draw the weights of member ``e`` from ``seeds[e]`` alone, on the CPU, so that every device starts alike."""
        for member, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            for layer in (self.linear1, self.linear2, self.linear3):
                drawn = torch.empty(layer.weight.shape[1:]).normal_(0, _INIT_STD, generator=generator)
                layer.weight[member].copy_(drawn)
                layer.bias[member].zero_()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(E, N, K)`` of pixels ``(N, D)``, or of other pixels for each member, ``(E, N, D)``."""
        inputs = (x - self.shift).mul_(self.scale).transpose(-1, -2)  # (D, N) or (E, D, N)
        return self.after_first(self.linear1(inputs))

    def after_first(self, units: Tensor) -> Tensor:
        """Logits ``(E, N, K)`` of what the first linear layer gives, ``(E, h1, N)``."""
        first = self.norm1(F.relu(units))  # (E, h1, N)
        second = self.norm2(F.relu(self.linear2(first)))  # (E, h2, N)
        logits: Tensor = self.linear3(second)  # (E, K, N)
        return logits.transpose(1, 2)

    @torch.no_grad()
    def folded(self, member: int) -> FoldedMember:
        """A member in evaluation, with standardisation and batch norms folded into the layers that follow them (exactly)."""
        weight1, weight2, weight3 = (layer.weight[member] for layer in (self.linear1, self.linear2, self.linear3))
        gain1, offset1 = self.norm1.affine(member)
        gain2, offset2 = self.norm2.affine(member)
        return FoldedMember(
            weight1 * self.scale,
            self.linear1.bias[member] - weight1 @ (self.shift * self.scale),
            weight2 * gain1,
            self.linear2.bias[member] + weight2 @ offset1,
            weight3 * gain2,
            self.linear3.bias[member] + weight3 @ offset2,
        )


@dataclass(frozen=True)
class LogitsChunk:
    """Logits of one member for a rectangle of the image.

    Attributes
    ----------
    member : int
    rows, cols : slice
        Image rows and columns.
    logits : Tensor
        ``(K, rows, cols)``; the receiver may overwrite it.
    """

    member: int
    rows: slice
    cols: slice
    logits: Tensor


@torch.no_grad()
def predict_pixels(
    ensemble: PixelMLPEnsemble, maps: Sequence[FeatureMap], rows: slice, cols: slice, *, members: int
) -> Iterator[LogitsChunk]:
    """Logits of the first `members` members in evaluation for a window of the image, in bounded pieces.

    Parameters
    ----------
    ensemble : PixelMLPEnsemble
        Its D is the sum of the maps' channels.
    maps : sequence of FeatureMap
        In the order of the ensemble's channels. They may be crops, as long as they hold every cell that the window reads;
        the result is that of the whole maps.
    rows, cols : slice
        Start and stop of the window in image pixels.
    members : int
        At most the ensemble's.

    Yields
    ------
    LogitsChunk
        Rectangles that cover the window once for each member, in no order to rely on.

    Raises
    ------
    UsageError
        If the maps do not have the ensemble's channels, or a map lacks cells that the window reads.

    Notes
    -----
    Pixel ``y`` reads a map of stride ``s`` at ``(y + 0.5) / s - 0.5``, bilinearly, the edge of the whole map repeated: that is
    ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` of the whole map by the factor ``s``.
    """
    have = sum(m.values.shape[0] for m in maps)
    if have != ensemble.dims:
        raise UsageError(
            f"the feature maps have {have} channels together and the classifier reads {ensemble.dims}: "
            "take the blocks and timesteps that it was fitted on"
        )
    device = ensemble.shift.device
    for block_rows, block_cols in _blocks(maps, ensemble.hidden[0], rows, cols):
        groups = _grouped(maps, block_rows, block_cols, device)
        for member in range(members):
            folded = ensemble.folded(member)
            read = [group for group in groups if _reads(folded, group)] or groups[:1]
            hidden = [_hidden_map(group, folded) for group in read]
            hidden[0] += folded.bias1  # bilinear weights sum to one: once, on the map with the fewest cells
            for part in _chunks(block_rows, block_cols, ensemble.hidden[0]):
                yield LogitsChunk(member, part, block_cols, _logits(folded, read, hidden, part, block_cols))


def cells_read(start: int, stop: int, stride: int, size: int) -> tuple[int, int]:
    """First and last-but-one cell that pixels ``start .. stop - 1`` read along an axis of a map with `size` cells.

    In exact integers: pixel ``y`` reads at ``(2y + 1 - s) / 2s``; a cell of weight zero is not read.
    """
    first = (2 * start + 1 - stride) // (2 * stride)
    last = -(-(2 * stop - 1 - stride) // (2 * stride))
    return min(max(first, 0), size - 1), min(max(last, 0), size - 1) + 1


def taps(pixels: NDArray[np.int64], stride: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The two cells that each pixel reads along an axis of a map with `size` cells, and the weight of the second.

    A cell of weight zero is not read: the first is given twice.
    """
    place = np.clip((pixels + 0.5) / stride - 0.5, 0, size - 1)
    lower = np.floor(place).astype(np.int64)
    weight = place - lower
    return lower, lower + (weight > 0), weight


@dataclass(frozen=True)
class _Group:
    """Cells of all maps of one stride that a block of the image reads."""

    stride: int
    origin: tuple[int, int]  # first row and column, in cells
    size: tuple[int, int]  # rows and columns, in cells
    cells: Tensor  # (rows * columns, channels of all these maps) float32
    channels: tuple[slice, ...]  # their places among the ensemble's channels


def _grouped(maps: Sequence[FeatureMap], rows: slice, cols: slice, device: torch.device) -> list[_Group]:
    """Maps of equal stride side by side, one product then serves them all; the coarsest first."""
    ends = list(accumulate(m.values.shape[0] for m in maps))
    spans = [slice(end - m.values.shape[0], end) for m, end in zip(maps, ends, strict=True)]
    groups = []
    for stride, full in sorted({(m.stride, m.full) for m in maps}, reverse=True):
        same = [i for i, m in enumerate(maps) if (m.stride, m.full) == (stride, full)]
        top, bottom = cells_read(rows.start, rows.stop, stride, full[0])
        left, right = cells_read(cols.start, cols.stop, stride, full[1])
        size = (bottom - top, right - left)
        cells = torch.empty(size[0] * size[1], sum(maps[i].values.shape[0] for i in same), device=device)
        filled = 0
        for i in same:
            crop = crop_cells(maps[i], (top, bottom), (left, right)).to(device)
            # to rows of channels in a plain copy first: PyTorch transposes that one block by block, three times faster
            cells[:, filled : filled + crop.shape[0]] = crop.flatten(1).float().t().contiguous()
            filled += crop.shape[0]
        groups.append(_Group(stride, (top, left), size, cells, tuple(spans[i] for i in same)))
    return groups


def crop_cells(feature_map: FeatureMap, rows: tuple[int, int], cols: tuple[int, int]) -> Tensor:
    """``(C, rows, cols)`` of a map by whole-map cells; a `UsageError` if it does not hold them all."""
    (top, left), (height, width) = feature_map.origin, feature_map.values.shape[1:]
    if rows[0] < top or rows[1] > top + height or cols[0] < left or cols[1] > left + width:
        raise UsageError(
            f"a feature map of stride {feature_map.stride} holds cells {top}..{top + height - 1} x {left}..{left + width - 1} "
            f"and the window reads {rows[0]}..{rows[1] - 1} x {cols[0]}..{cols[1] - 1}: give it one more cell on each side"
        )
    return feature_map.values[:, rows[0] - top : rows[1] - top, cols[0] - left : cols[1] - left]


def _reads(folded: FoldedMember, group: _Group) -> bool:
    """Whether a member looks at a group at all: one that reads a single source of features does not look at the others."""
    return any(bool(folded.weight1[:, span].any()) for span in group.channels)


def _hidden_map(group: _Group, folded: FoldedMember) -> Tensor:
    """What a group adds to the first layer, at its own resolution: ``(rows, columns, h1)``."""
    weight = torch.cat([folded.weight1[:, span] for span in group.channels], dim=1)  # (h1, channels)
    return _linear(group.cells, weight, None, relu=False).view(*group.size, -1)


def _logits(folded: FoldedMember, groups: Sequence[_Group], hidden: Sequence[Tensor], rows: slice, cols: slice) -> Tensor:
    """``(K, rows, cols)`` of one chunk."""
    parts = [_upsampled(values, group, rows, cols) for values, group in zip(hidden, groups, strict=True)]
    first = parts[0] + parts[1] if len(parts) > 1 else parts[0].clone()  # (rows, cols, h1), pixels outermost
    for part in parts[2:]:
        first += part
    first.relu_()
    second = _linear(first.flatten(0, 1), folded.weight2, folded.bias2, relu=True)  # (pixels, h2)
    logits = _linear(folded.weight3, second, None, relu=False)  # (K, pixels): what comes after runs along pixels
    logits += folded.bias3[:, None]
    return logits.view(-1, *first.shape[:2])


def _upsampled(hidden: Tensor, group: _Group, rows: slice, cols: slice) -> Tensor:
    """``(rows, cols, h1)`` of hidden cells ``(h, w, h1)``.

    The group ends at the border of the whole map or a cell outside its block, so its cells clamp as the map's do.
    """
    s, (top, left) = group.stride, group.origin
    height = rows.stop - rows.start
    across = slice(cols.start - left * s, cols.stop - left * s)
    if s > _COARSE:  # a few pixel rows: interpolating whole cells down the image would make many rows that are not asked for
        lower, upper, weight = taps(np.arange(rows.start, rows.stop) - top * s, s, group.size[0])
        index = [torch.from_numpy(v).to(hidden.device) for v in (lower, upper)]
        down = torch.from_numpy(weight).to(hidden)[:, None, None]
        cells = torch.lerp(hidden.index_select(0, index[0]), hidden.index_select(0, index[1]), down)  # (rows, w, h1)
        return _interpolated(cells, 1, s)[:, across]
    first, end = cells_read(rows.start - top * s, rows.stop - top * s, s, group.size[0])
    start = rows.start - (top + first) * s
    return _interpolated(hidden[first:end], s, s)[start : start + height, across]


def _interpolated(cells: Tensor, down: int, across: int) -> Tensor:
    """``(h, w, C)`` to ``(h * down, w * across, C)``."""
    if down == across == 1:
        return cells
    # (1, C, h, w) in channels-last memory: PyTorch then interpolates whole vectors of channels. The batch axis must be the
    # outermost before the permutation: with another stride it counts as not channels-last and takes 30 times as long
    image = cells[None].permute(0, 3, 1, 2)
    size = (cells.shape[0] * down, cells.shape[1] * across)
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool) -> Tensor:
    """Linear layer of ``(N, in)`` by ``(out, in)`` with an optional ReLU; both contiguous, float32.

    oneDNN uses the widest vectors of any CPU, where MKL keeps to AVX2 unless the maker is Intel (half the speed, measured on an
    AMD Zen 5).
    """
    if _FUSED_LINEAR is not None and x.device.type == "cpu" and torch.backends.mkldnn.enabled:  # type: ignore[truthy-bool]
        # strided input would take a path hundreds of times slower
        fused: Tensor = _FUSED_LINEAR(x.contiguous(), weight.contiguous(), bias, "relu" if relu else "none", [], "")
        return fused
    out = F.linear(x, weight, bias)
    return out.relu_() if relu else out


def _blocks(maps: Sequence[FeatureMap], width: int, rows: slice, cols: slice) -> Iterator[tuple[slice, slice]]:
    """Cut a window into blocks whose cells and hidden units take about `_BLOCK_BYTES`."""
    pixel = sum(m.values.shape[0] / m.stride**2 for m in maps) + sum(width / s**2 for s in {m.stride for m in maps})
    limit = max(_BLOCK_BYTES / (4 * pixel), 1)
    for part in _pieces(cols, math.ceil((cols.stop - cols.start) / _BLOCK_WIDTH)):
        height = max(int(limit / (part.stop - part.start)), 1)
        for band in _pieces(rows, math.ceil((rows.stop - rows.start) / height)):
            yield band, part


def _chunks(rows: slice, cols: slice, width: int) -> Iterator[slice]:
    height = max(_CHUNK_BYTES // (4 * width * (cols.stop - cols.start)), 1)
    return _pieces(rows, math.ceil((rows.stop - rows.start) / height))


def _pieces(span: slice, n: int) -> Iterator[slice]:
    """`n` slices of nearly equal length that make up `span`."""
    length = span.stop - span.start
    return (slice(span.start + length * i // n, span.start + length * (i + 1) // n) for i in range(n))
