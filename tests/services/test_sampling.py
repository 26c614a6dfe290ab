"""Pictures made by a backbone: the same for a seed and number, whole files, and clear refusals."""

import dataclasses
import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from mdm_studio.engine.backbones import BackboneCard, untrained_backbone
from mdm_studio.engine.generation import Sampler, noise_process, sample_size
from mdm_studio.errors import OutputError, UsageError
from mdm_studio.nn.unet import UNetConfig
from mdm_studio.nn.uvit import UViTConfig
from mdm_studio.services import sampling
from mdm_studio.services.sampling import SampleRequest, make_pictures, sample_files, warnings, write_sheet

FEW = Sampler(steps=3)


def _backbone(channels=3, **settings):
    out = channels * (2 if settings.get("learn_sigma") else 1)
    config = UNetConfig(
        in_channels=channels, out_channels=out, model_channels=32, channel_mult=(1, 1), num_res_blocks=1,
        middle_attention=False, stem=2, norm_groups=8,
    )  # fmt: skip
    recipe = {"name": "ddpm", **settings}
    card = BackboneCard("tiny", "", {"kind": "unet"}, recipe, blocks=(0,), training={"config": {"crop": 16}})
    return untrained_backbone(config, card)


@pytest.fixture(scope="module")
def backbone():
    return _backbone()


def _look(path):
    with Image.open(path) as image:
        return image.mode, image.size


def _made(backbone, numbers, sampler=FEW, seed=0, size=(16, 16)):
    events = make_pictures(backbone, numbers, sampler, seed=seed, size=size)
    return [picture for event in events for picture in event.finished]


@pytest.mark.parametrize("sampler", [FEW, Sampler(steps=3, eta=1.0), Sampler("ancestral", 4)])
def test_a_picture_depends_on_seed_and_number_alone(backbone, sampler, monkeypatch):
    together = _made(backbone, range(1, 6), sampler)
    monkeypatch.setattr(sampling, "_CPU_BATCH", 2)
    apart = _made(backbone, [4, 2, 5], sampler)
    for number, picture in zip([4, 2, 5], apart, strict=True):
        difference = picture.astype(int) - together[number - 1].astype(int)
        assert np.abs(difference).max() <= 1  # kernels for other batch sizes round differently
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(together[0], _made(backbone, [1], sampler, seed=1)[0])


@pytest.mark.parametrize(
    ("settings", "sampler"),
    [({"learn_sigma": True}, Sampler("ancestral", 3)), ({"learn_sigma": True}, FEW), ({"predict": "image"}, FEW)],
)
def test_every_kind_of_answer_can_be_sampled(settings, sampler):
    picture = _made(_backbone(**settings), [1], sampler, size=(16, 32))[0]
    assert picture.shape == (3, 16, 32)
    assert picture.std() > 0


@pytest.mark.parametrize(
    ("settings", "sampler"),
    [
        ({"schedule": "linear"}, Sampler(steps=20)),
        ({"schedule": "cosine"}, Sampler(steps=20, eta=1)),
        ({"schedule": "cosine", "predict": "image"}, Sampler(steps=20)),
        ({"schedule": "linear"}, Sampler("ancestral", 50)),
    ],
)
def test_the_best_possible_network_gives_its_training_images(settings, sampler, monkeypatch):
    """The mean of the images that a noisy one may come from, in closed form, in the place of a network that learned it."""
    backbone = _backbone(**settings)
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def predict(seen, t, hidden=None):
        abar = backbone.recipe.abar[t][:, None, None, None].float()
        squares = (seen[:, None] - abar.sqrt()[:, None] * images).square().sum((2, 3, 4))  # (B, 3)
        image = torch.einsum("bn,nchw->bchw", (-squares / (2 * (1 - abar[:, :, 0, 0]))).softmax(1), images)
        return image if backbone.recipe.predict == "image" else (seen - abar.sqrt() * image) / (1 - abar).sqrt()

    monkeypatch.setattr(backbone, "predict", predict)
    wanted = ((images + 1) * 127.5).round().int()
    nearest = []
    for picture in _made(backbone, range(1, 9), sampler):
        differences = (torch.from_numpy(picture).int() - wanted).abs().flatten(1).max(1).values
        assert differences.min() <= 3
        nearest.append(int(differences.argmin()))
    assert len(set(nearest)) > 1


@pytest.mark.parametrize("wavelet", [False, True])
def test_a_u_vit_of_stage_two_and_of_stage_one(wavelet):
    config = UViTConfig(image_size=16, dim=32, depth=2, heads=2, wavelet=wavelet)
    recipe = {"name": "maskdm", "ratio": 0.0, "wavelet": wavelet}
    card = BackboneCard("vit", "", {"kind": "uvit"}, recipe, blocks=(0,))
    backbone = untrained_backbone(config, card)
    assert sample_size(backbone.card) == (16, 16)
    assert _made(backbone, [1])[0].shape == (3, 16, 16)
    assert warnings(backbone) == []
    with pytest.raises(UsageError, match="16,16 pixels alone"):
        sample_size(backbone.card, (32, 32))
    stage_one = untrained_backbone(config, dataclasses.replace(card, recipe=recipe | {"ratio": 0.9}))
    assert "90% of each picture hidden" in warnings(stage_one)[0]


def test_files_sheet_and_facts(backbone, tmp_path):
    events = list(sample_files(backbone, SampleRequest(tmp_path / "o", 5, FEW)))
    names = [f"sample-{number:04d}.png" for number in range(1, 6)]
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [*names, "sampling.json", "sheet.png"]
    assert [path.name for event in events for path in event.finished] == names
    assert events[-1].done == 5
    assert _look(tmp_path / "o" / names[0]) == ("RGB", (16, 16))
    assert _look(tmp_path / "o" / "sheet.png") == ("RGB", (3 * 16 + 2 * 4, 2 * 16 + 4))
    facts = json.loads((tmp_path / "o" / "sampling.json").read_text())
    assert facts["files"] == names
    assert (facts["digest"], facts["seed"], facts["sampler"]["steps"]) == (backbone.card.digest, 0, 3)


def test_files_that_are_there_stay_unless_they_may_be_replaced(backbone, tmp_path):
    (tmp_path / "sample-0002.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"1 files of these names already.*sample-0002.*--overwrite"):
        next(sample_files(backbone, SampleRequest(tmp_path, 2, FEW)))
    assert [path.name for path in tmp_path.iterdir()] == ["sample-0002.png"]
    list(sample_files(backbone, SampleRequest(tmp_path, 2, FEW, overwrite=True)))
    assert _look(tmp_path / "sample-0002.png") == ("RGB", (16, 16))


def test_an_interruption_leaves_the_finished_pictures_and_their_sheet(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "_CPU_BATCH", 2)
    events = sample_files(backbone, SampleRequest(tmp_path / "o", 6, FEW))
    for event in events:
        if event.done > 3:
            break
    events.close()
    names = ["sample-0001.png", "sample-0002.png", "sampling.json", "sheet.png"]
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == names
    facts = json.loads((tmp_path / "o" / "sampling.json").read_text())
    assert (facts["asked_for"], facts["files"]) == (6, names[:2])


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (5, None)])
def test_grey_and_many_channels(channels, mode, tmp_path):
    list(sample_files(_backbone(channels), SampleRequest(tmp_path, 1, FEW)))
    if mode is None:
        assert tifffile.imread(tmp_path / "sample-0001.tif").shape == (5, 16, 16)
    else:
        assert _look(tmp_path / "sample-0001.png")[0] == mode
    assert _look(tmp_path / "sheet.png")[0] == "RGB"


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ({"name": "mdm"}, "never saw noise"),
        ({"name": "mae"}, "never saw noise"),
        ({"name": "ddep"}, "one small amount of noise"),
        ({"name": ""}, "gives features and no pictures"),
        ({"name": "ddpm", "fixed_t": 50}, "timestep 50 alone"),
    ],
)
def test_backbones_that_cannot_make_pictures_say_why(backbone, recipe, reason):
    with pytest.raises(UsageError, match=rf"{reason}.*recipe ddpm"):
        noise_process(dataclasses.replace(backbone.card, recipe=recipe))


@pytest.mark.parametrize(("size", "words"), [((15, 16), "multiples of 4, for example 16,16"), ((2, 4), "for example 4,4")])
def test_sizes_that_do_not_fit(backbone, size, words):
    with pytest.raises(UsageError, match=words):
        sample_size(backbone.card, size)
    assert sample_size(backbone.card) == (16, 16)
    assert sample_size(backbone.card, (16, 32)) == (16, 32)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sampler("euler"), "ddim or ancestral"),
        (lambda: Sampler(eta=2), "eta is 2"),
        (lambda: Sampler("ancestral", eta=0.5), "belongs to ddim"),
    ],
)
def test_wrong_samplers(make, words):
    with pytest.raises(UsageError, match=words):
        make()


def test_too_many_steps_and_no_warning(backbone):
    with pytest.raises(UsageError, match=r"1001 steps.*1 to 1000"):
        _made(backbone, [1], Sampler(steps=1001))
    assert warnings(backbone) == []


def test_a_sheet_of_hundreds_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "_SHEET_SIDE", 50)
    write_sheet(tmp_path / "s.png", [np.zeros((3, 20, 20), np.uint8)] * 401)
    assert _look(tmp_path / "s.png")[1] == (50, 50)
