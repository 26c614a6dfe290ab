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
_CHUNK_BYTES = 4 << 20  # one member's hidden units at pixels: stays in cache, and is few enough calls (1 to 12 MiB measured)
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
        """Logits ``(E, N, K)`` of what the first linear layer gives, ``(E, h1, N)``, which is overwritten."""
        first = self.norm1(F.relu_(units))  # (E, h1, N)
        second = self.norm2(F.relu_(self.linear2(first)))  # (E, h2, N)
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
    every = [ensemble.folded(member) for member in range(members)]
    read_by = _readers(every, maps)
    for block_rows, block_cols in _blocks(maps, ensemble.hidden[0], rows, cols):
        groups = _grouped(maps, read_by, block_rows, block_cols, device)
        for member, folded in enumerate(every):
            layers: list[_FirstLayer] = []
            for group in groups:
                if member in group.readers:  # bilinear weights sum to one: the bias once, wherever it is
                    layers.append(_FirstLayer(group, folded, None if layers else folded.bias1))
            for part in _chunks(block_rows, block_cols, ensemble.hidden[0]):
                yield LogitsChunk(member, part, block_cols, _logits(folded, layers, part, block_cols))


@torch.no_grad()
def predict_rows(ensemble: PixelMLPEnsemble, features: Tensor, *, members: int) -> Iterator[LogitsChunk]:
    """Logits of the first `members` members in evaluation for pixels whose features are there already.

    Parameters
    ----------
    ensemble : PixelMLPEnsemble
    features : (N, D) floating
        One pixel a row.
    members : int
        At most the ensemble's.

    Yields
    ------
    LogitsChunk
        With all pixels side by side in a single image row.
    """
    every = [ensemble.folded(member) for member in range(members)]
    spans = [_channels_read(folded.weight1) for folded in every]
    n = len(features)
    for part in pieces(slice(0, n), math.ceil(4 * ensemble.hidden[0] * n / _CHUNK_BYTES * 2)):  # half: no halo (measured)
        rows = features[part]
        inputs = {  # once for all members that read the same channels
            (a, b): rows[:, a:b].to(ensemble.shift).contiguous() for a, b in set(spans)
        }
        for member, (folded, span) in enumerate(zip(every, spans, strict=True)):
            first = _linear(inputs[span], folded.weight1[:, slice(*span)], folded.bias1, relu=True)  # (n, h1)
            yield LogitsChunk(member, slice(0, 1), part, _after_first(folded, first)[:, None])


def _channels_read(weight: Tensor) -> tuple[int, int]:
    """The columns of a first layer ``(h1, D)`` outside which all weights are zero; one at least."""
    read = weight.any(0).nonzero().flatten().tolist() or [0]
    return read[0], read[-1] + 1


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


def _readers(every: Sequence[FoldedMember], maps: Sequence[FeatureMap]) -> list[frozenset[int]]:
    """Members that look at each map: one that reads a single source of features does not look at the others."""
    widths = [m.values.shape[0] for m in maps]
    looks = [[bool(part.any()) for part in torch.split(folded.weight1, widths, dim=1)] for folded in every]
    return [frozenset(member for member, of in enumerate(looks) if of[i]) for i in range(len(maps))]


@dataclass(frozen=True)
class _Group:
    """Cells of all maps of one stride, read by the same members, that a block of the image reads."""

    stride: int
    readers: frozenset[int]
    origin: tuple[int, int]  # first row and column, in cells
    size: tuple[int, int]  # rows and columns, in cells
    cells: Tensor  # (rows * columns, channels of all these maps) float32
    channels: tuple[slice, ...]  # their places among the ensemble's channels


def _grouped(
    maps: Sequence[FeatureMap], read_by: Sequence[frozenset[int]], rows: slice, cols: slice, device: torch.device
) -> list[_Group]:
    """Maps of equal stride and readers side by side, one product then serves them all; the finest first."""
    ends = list(accumulate(m.values.shape[0] for m in maps))
    spans = [slice(end - m.values.shape[0], end) for m, end in zip(maps, ends, strict=True)]
    kinds = [(m.stride, m.full, readers) for m, readers in zip(maps, read_by, strict=True)]
    groups = []
    for kind in sorted(set(kinds), key=lambda kind: (-kind[0], kind[1], sorted(kind[2]))):
        stride, full, readers = kind
        same = [i for i, each in enumerate(kinds) if each == kind]
        top, bottom = cells_read(rows.start, rows.stop, stride, full[0])
        left, right = cells_read(cols.start, cols.stop, stride, full[1])
        crops = [crop_cells(maps[i], (top, bottom), (left, right)) for i in same]
        if not readers:
            continue
        # to rows of channels map by map: PyTorch transposes a plain copy block by block, three times faster
        parts = [crop.to(device).flatten(1).float().t().contiguous() for crop in crops]
        cells = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        groups.append(_Group(stride, readers, (top, left), (bottom - top, right - left), cells, tuple(spans[i] for i in same)))
    return groups[::-1]


def crop_cells(feature_map: FeatureMap, rows: tuple[int, int], cols: tuple[int, int]) -> Tensor:
    """``(C, rows, cols)`` of a map by whole-map cells; a `UsageError` if it does not hold them all."""
    (top, left), (height, width) = feature_map.origin, feature_map.values.shape[1:]
    if rows[0] < top or rows[1] > top + height or cols[0] < left or cols[1] > left + width:
        raise UsageError(
            f"a feature map of stride {feature_map.stride} holds cells {top}..{top + height - 1} x {left}..{left + width - 1} "
            f"and the window reads {rows[0]}..{rows[1] - 1} x {cols[0]}..{cols[1] - 1}: give it one more cell on each side"
        )
    return feature_map.values[:, rows[0] - top : rows[1] - top, cols[0] - left : cols[1] - left]


class _FirstLayer:
    """What a group adds to a member's first layer, with `bias` or without."""

    def __init__(self, group: _Group, folded: FoldedMember, bias: Tensor | None):
        self._group, self._bias = group, bias
        self._weight = torch.cat([folded.weight1[:, span] for span in group.channels], dim=1)  # (h1, channels)
        # hidden units at the group's own cells; those of cells that are pixels come chunk by chunk: they are not read twice
        self._hidden = None if group.stride == 1 else self._units(group.cells).view(*group.size, -1)

    def _units(self, cells: Tensor) -> Tensor:
        return _linear(cells, self._weight, self._bias, relu=False)

    def at(self, rows: slice, cols: slice) -> Tensor:
        """Hidden units ``(rows, cols, h1)`` at pixels of the block, of which `cols` are all columns; may be overwritten."""
        if self._hidden is not None:
            return _upsampled(self._hidden, self._group, rows, cols)
        top, (height, width) = self._group.origin[0], self._group.size
        cells = self._group.cells.view(height, width, -1)[rows.start - top : rows.stop - top]
        return self._units(cells.flatten(0, 1)).view(-1, width, len(self._weight))


def _logits(folded: FoldedMember, layers: Sequence[_FirstLayer], rows: slice, cols: slice) -> Tensor:
    """``(K, rows, cols)`` of one chunk."""
    size = (rows.stop - rows.start, cols.stop - cols.start)
    first = layers[0].at(rows, cols) if layers else folded.bias1.expand(*size, -1)  # (rows, cols, h1), pixels outermost
    for layer in layers[1:]:
        first += layer.at(rows, cols)
    first = first.relu_() if first.is_contiguous() else first.relu()  # the copy that the next product needs
    return _after_first(folded, first.flatten(0, 1)).view(-1, *size)


def _after_first(folded: FoldedMember, first: Tensor) -> Tensor:
    """Logits ``(K, N)`` of the first hidden layer ``(N, h1)``."""
    second = _linear(first, folded.weight2, folded.bias2, relu=True)  # (N, h2)
    logits = _linear(folded.weight3, second, None, relu=False)  # (K, N): what comes after runs along pixels
    logits += folded.bias3[:, None]
    return logits


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
    for part in pieces(cols, math.ceil((cols.stop - cols.start) / _BLOCK_WIDTH)):
        height = max(int(limit / (part.stop - part.start)), 1)
        for band in pieces(rows, math.ceil((rows.stop - rows.start) / height)):
            yield band, part


def _chunks(rows: slice, cols: slice, width: int) -> Iterator[slice]:
    height = max(_CHUNK_BYTES // (4 * width * (cols.stop - cols.start)), 1)
    return pieces(rows, math.ceil((rows.stop - rows.start) / height))


def pieces(span: slice, n: int) -> Iterator[slice]:
    """Cut `span` into `n` slices of nearly equal length."""
    length = span.stop - span.start
    return (slice(span.start + length * i // n, span.start + length * (i + 1) // n) for i in range(n))
