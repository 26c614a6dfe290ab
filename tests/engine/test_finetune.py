"""Fine-tuning: partial labels are learnt, the same seed gives the same network, and what cannot be learnt is refused."""

import numpy as np
import pytest
import torch

from mdm_studio.engine.backbones import load_backbone
from mdm_studio.engine.finetune import UNLABELLED, FinetuneConfig, Patch, finetune, with_readers
from mdm_studio.engine.heads import identity_ensemble, predict_points
from mdm_studio.engine.recipes import Place
from mdm_studio.errors import LabelsError, UsageError
from mdm_studio.testing import blobs

_CPU = torch.device("cpu")


def _patches(scale=1, every=6, n=2):
    found = []
    for seed in range(n):
        image, mask = blobs(64 * scale, 64 * scale, seed=seed)
        seen = image[::scale, ::scale].transpose(2, 0, 1) / 127.5 - 1
        labels = np.full(mask.shape, UNLABELLED, np.int16)
        labels[::every] = mask[::every].astype(np.int16) - 1
        found.append(Patch(seen.astype(np.float16), labels, Place()))
    return found


def _config(**given):
    return FinetuneConfig(**({"steps": 6, "batch": 2, "crop": 32, "warmup": 2, "lr": 1e-3} | given))


def _last(backbone, patches, config):
    net = with_readers(backbone, (2, 3), 2)
    *_, step = finetune(net, backbone.recipe, 50, patches, config, _CPU)
    return step


@torch.no_grad()
def _accuracy(net, seed=7):
    image, mask = blobs(64, 64, seed=seed)
    x = torch.from_numpy(image.transpose(2, 0, 1)[None] / 127.5 - 1).float()
    return float((net(x, torch.tensor([50]))[0].argmax(0).numpy() + 1 == mask).mean())


@pytest.mark.parametrize("scale", [1, 2])
def test_strokes_teach_the_whole_network(tiny_backbone, scale):
    backbone = load_backbone(tiny_backbone)
    step = _last(backbone, _patches(scale), _config())
    net = step.snapshot()
    assert step.step == 6
    assert step.done == 1
    if scale == 1:
        assert _accuracy(net) > 0.9
    before, after = backbone.net.state_dict(), net.inner.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert any("input_blocks.0" in name for name in changed)  # to the very first layer
    assert not any(p.requires_grad for p in backbone.net.parameters())  # and the backbone is as it was


def test_the_same_seed_gives_the_same_network(tiny_backbone):
    backbone, patches = load_backbone(tiny_backbone), _patches()
    torch.manual_seed(1)
    one = _last(backbone, patches, _config(steps=2, invert=True)).snapshot().state_dict()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    other = _last(backbone, patches, _config(steps=2, invert=True)).snapshot().state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), state)
    third = _last(backbone, patches, _config(steps=2, seed=1)).snapshot().state_dict()
    assert not all(torch.equal(one[name], third[name]) for name in one)


def test_it_ends_in_time(tiny_backbone):
    step = _last(load_backbone(tiny_backbone), _patches(), _config(steps=10**6, minutes=1e-6))
    assert step.done == 1
    assert step.step == 1


def test_what_cannot_be_learnt_is_refused(tiny_backbone):
    backbone, patches = load_backbone(tiny_backbone), _patches()
    for patch in patches:
        patch.labels[patch.labels == 1] = UNLABELLED
    with pytest.raises(LabelsError, match="1 classes are labelled"):
        _last(backbone, patches, _config())
    with pytest.raises(UsageError, match="0 steps"):
        _last(backbone, _patches(), _config(steps=0))


def test_the_head_over_logits_is_exact():
    logits = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * 30
    ensemble = identity_ensemble(3)
    with torch.no_grad():
        assert torch.equal(ensemble(logits.clone())[0], logits)
    found = predict_points(ensemble, logits)
    assert (found.labels == logits.argmax(1).numpy()).all()
    entropy = torch.special.entr(logits.softmax(1)).sum(1).numpy()
    np.testing.assert_allclose(found.uncertainty, entropy, atol=1e-6)  # one member cannot disagree with itself
