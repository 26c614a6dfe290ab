"""The published way to classify pixels, plainly: upsample every feature map, concatenate, and let the MLPs vote one by one.

This is the yardstick of the tests and of ``benchmarks/ensemble_prediction.py``: written for reading, from the description in
Baranchuk et al., "Label-Efficient Semantic Segmentation with Diffusion Models", ICLR 2022, and from DatasetGAN (Zhang et al.,
CVPR 2021), whose ensemble it is. Nothing of MDM Studio's own prediction is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdm_studio.nn.pixel_mlp import PixelMLPEnsemble


class PeerMLP(nn.Module):
    """One member: two hidden layers, batch norm after each ReLU."""

    def __init__(self, dims: int, n_classes: int):
        super().__init__()
        first, second = (128, 32) if n_classes < 30 else (256, 128)
        self.layers = nn.Sequential(
            nn.Linear(dims, first),
            nn.ReLU(),
            nn.BatchNorm1d(first),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.BatchNorm1d(second),
            nn.Linear(second, n_classes),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers(pixels)


@dataclass(frozen=True)
class PeerPrediction:
    labels: Tensor  # (H, W) int64, the most frequent vote; the smallest of equally frequent ones
    probabilities: Tensor  # (K, H, W), mean over members
    uncertainty: Tensor  # (H, W), Jensen-Shannon divergence of the members in nats


def peer_features(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """``(D, H, W)``: every map ``(C, h, w)`` brought to `size`, one after another along the channels."""
    upsampled = [F.interpolate(m[None].float(), size=size, mode="bilinear")[0] for m in maps]
    return torch.cat(upsampled)


@torch.no_grad()
def peer_predict(members: Sequence[nn.Module], features: Tensor) -> PeerPrediction:
    """Prediction of `members`, each called on all pixels of `features` ``(D, H, W)``."""
    dims, height, width = features.shape
    pixels = features.view(dims, -1).permute(1, 0)  # (H*W, D)
    votes, entropies, mean = [], [], torch.zeros(())
    for member in members:
        logits = member(pixels)
        mean = mean + logits.softmax(1) / len(members)
        entropies.append(_entropy(logits.log_softmax(1)))
        votes.append(logits.argmax(1))
    divergence = _entropy(mean.log()) - torch.stack(entropies).mean(0)
    return PeerPrediction(
        torch.mode(torch.stack(votes, -1), -1).values.view(height, width),
        mean.t().reshape(-1, height, width),
        divergence.view(height, width),
    )


def peer_top_uncertainty(divergence: Tensor) -> float:
    """One number an image: the mean of its most uncertain tenth."""
    ordered = divergence.flatten().sort().values
    return float(ordered[-int(len(ordered) / 10) :].mean())


def _entropy(log_probabilities: Tensor) -> Tensor:
    return torch.special.entr(log_probabilities.exp()).sum(1)


_OURS = {"0": "linear1", "2": "norm1", "3": "linear2", "5": "norm2", "6": "linear3"}


@torch.no_grad()
def copy_member(member: PeerMLP, ensemble: PixelMLPEnsemble, place: int) -> None:
    """Write a member's weights into its place in an ensemble of MDM Studio."""
    ours = ensemble.state_dict()
    for name, value in member.state_dict().items():
        _, layer, tensor = name.split(".")
        if tensor != "num_batches_tracked":  # the running statistics move by a fixed momentum
            ours[f"{_OURS[layer]}.{tensor}"][place] = value


def stacked(members: Sequence[PeerMLP]) -> PixelMLPEnsemble:
    """The same members as one ensemble of MDM Studio."""
    first, second, last = (members[0].layers[i] for i in (0, 3, 6))
    hidden = (first.out_features, second.out_features)
    ensemble = PixelMLPEnsemble(first.in_features, last.out_features, members=len(members), hidden=hidden)
    for place, member in enumerate(members):
        copy_member(member, ensemble, place)
    return ensemble.eval()
