"""The privacy report: a network that knows its images by heart is recognised, one that knows nothing is not accused."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from mdm_studio.engine.backbones import BackboneCard, untrained_backbone
from mdm_studio.engine.membership import Attack
from mdm_studio.errors import InputError, OutputError, UsageError
from mdm_studio.io.image_digest import image_digests
from mdm_studio.nn.unet import UNetConfig
from mdm_studio.services.privacy import Findings, PrivacyRequest, measure_privacy
from mdm_studio.services.privacy_images import divide
from mdm_studio.services.privacy_report import verdict

SIDE = 16
NETWORK = UNetConfig(model_channels=32, channel_mult=(1, 1), num_res_blocks=1, middle_attention=False, stem=2, norm_groups=8)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Folders with 4 and 8 pictures of one kind: smooth colours at random."""
    root = tmp_path_factory.mktemp("images")
    for number in range(12):
        folder = root / ("a" if number < 4 else "b")
        folder.mkdir(exist_ok=True)
        smooth = gaussian_filter(np.random.default_rng(number).normal(0, 1, (SIDE, SIDE, 3)), (2, 2, 0), mode="wrap")
        Image.fromarray(np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)).save(folder / f"{number:02d}.png")
    return sorted((root / "a").iterdir()), sorted((root / "b").iterdir())


def _card(name="mdm", **settings):
    training = {"config": {"crop": SIDE}} | settings.pop("training", {})
    return BackboneCard("tiny", "d", {"kind": "unet"}, {"name": name, **settings}, intensity="range", training=training)


def _measured(backbone, images, out, **settings):
    request = PrivacyRequest(out, **{"samples": 4, "steps": 2, "crops": 2, **settings})
    events = list(measure_privacy(backbone, *images, request))
    assert events[-2].done == 1
    assert isinstance(events[-1], Findings)
    return events[-1]


def _by_heart(paths, card, steps=40):
    """A backbone that was trained on nothing but these pictures and their mirror images."""
    backbone = untrained_backbone(NETWORK, card)
    net, recipe = backbone.net.train().requires_grad_(True), backbone.recipe
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths]).transpose(0, 3, 1, 2)
    x = torch.from_numpy(pixels / 127.5 - 1).float()
    x = torch.cat([x, x.flip(2), x.flip(3), x.flip(2, 3)])
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        example = recipe.corrupt(x, torch.randint(300, 1000, (len(x),), generator=generator), generator)
        recipe.loss(net(example.seen, example.t), example).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    net.eval().requires_grad_(False)
    return backbone


def test_a_network_that_knows_its_images_by_heart_is_recognised(images, tmp_path):
    backbone = _by_heart(images[0], _card(objective="mse", patch=4))
    found = _measured(backbone, images, tmp_path)
    for each in found.restoring:
        assert each.attack.auc > 0.9
        assert each.attack.low > 0.5
        assert np.median(each.errors[0]) < 0.8 * np.median(each.errors[1])
    assert [each.kind for each in found.resembling] == ["restored", "held-out"]
    assert "never saw noise" in found.notes[0]  # no samples, and the report says why
    text = (tmp_path / "privacy.md").read_text()
    assert "can be told from others, almost always" in text
    assert "few" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "distributions.png", "nearest-restored.png", "privacy.json", "privacy.md", "restored.png",
    ]  # fmt: skip
    numbers = json.loads((tmp_path / "privacy.json").read_text())
    assert sorted(numbers["images"]["trained"]) == [f"{number:02d}.png" for number in range(4)]
    assert numbers["restoring"][0]["attack"]["auc"] == found.restoring[0].attack.auc
    with pytest.raises(OutputError, match="--overwrite"):
        _measured(backbone, images, tmp_path)


def test_a_network_that_knows_nothing_is_not_accused(images, tmp_path):
    others = images[1]
    found = _measured(untrained_backbone(NETWORK, _card("ddpm")), (others[:4], others[4:]), tmp_path)
    for each in found.restoring:
        assert each.attack.low < 0.5 < each.attack.high
        assert each.attack.p > 0.05
    assert [each.kind for each in found.resembling] == ["samples", "restored", "held-out"]
    assert all(each.nearness.p > 0.05 for each in found.resembling)
    assert (tmp_path / "nearest-samples.png").exists()
    assert "No leak was found by this attack" in (tmp_path / "privacy.md").read_text()


def test_a_picture_that_copies_a_training_image_is_seen(images, tmp_path, monkeypatch):
    """Pictures made from noise that are training images, mirrored and dimmed."""
    pixels = [np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1) for path in images[0]]
    made = tuple((each[:, ::-1] // 2 + 20).astype(np.uint8) for each in pixels)
    event = type("Made", (), {"done": 4, "step": 2, "finished": made})
    monkeypatch.setattr("mdm_studio.services.privacy.make_pictures", lambda *_, **__: iter([event]))
    found = _measured(untrained_backbone(NETWORK, _card("ddpm")), images, tmp_path)
    samples = found.resembling[0]
    assert (samples.nearness.share, samples.beyond) == (1, 4)
    assert min(samples.correlation[0]) > 0.95
    assert max(samples.correlation[1]) < 0.9
    pair = found.pairs["samples"][0]
    number = int(pair.names[0][:2])
    np.testing.assert_allclose(pair.windows[0], pixels[number][:, ::-1] / 127.5 - 1, atol=1e-5)


def test_a_card_that_lists_its_images_divides_a_folder(images):
    card = _card(training={"image_digests": image_digests(images[0])})
    sides = divide(card, [*images[0], *images[1]], [])
    assert (list(sides.trained), list(sides.held_out)) == tuple(images)
    sides = divide(card, [*images[0], images[1][0]], [*images[1], images[0][1]])
    assert (list(sides.trained), list(sides.held_out)) == tuple(images)
    assert "1 files were left out: the card" in sides.notes[0]
    assert "1 held-out files were left out" in sides.notes[1]
    sides = divide(card, images[1][:4], images[1][4:])
    assert sides.trained == tuple(images[1][:4])
    assert "because you said so" in sides.notes[0]


@pytest.mark.parametrize(
    ("known", "held_out", "words"),
    [(False, False, "--held-out"), (True, False, "0 images held out are too few"), (False, True, "0 images held out")],
)
def test_images_that_cannot_be_divided(images, known, held_out, words):
    card = _card(training={"image_digests": image_digests(images[0])} if known else {})
    with pytest.raises(InputError, match=words):
        divide(card, images[0], images[0] if held_out else [])


def test_an_encoder_of_others_restores_nothing(images, tmp_path):
    backbone = untrained_backbone(NETWORK, _card("mdm"))
    backbone.card = dataclasses.replace(backbone.card, recipe={"name": ""})
    with pytest.raises(UsageError, match="restores nothing"):
        _measured(backbone, images, tmp_path)


@pytest.mark.parametrize(
    ("auc", "low", "high", "p", "words"),
    [
        (0.95, 0.9, 1, 0.001, "almost always"),
        (0.7, 0.6, 0.8, 0.01, "others, clearly"),
        (0.56, 0.52, 0.6, 0.04, "slightly"),
        (0.7, 0.6, 0.8, 0.2, "No leak"),
        (0.5, 0.4, 0.6, 0.9, "0.60 would not"),
        (0.3, 0.2, 0.4, 0.01, "differ"),
    ],
)
def test_verdicts(auc, low, high, p, words):
    assert words in verdict(Attack(auc, low, high, p, 0.1, 9, 9))
