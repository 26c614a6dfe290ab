"""Sheets of reconstructions carry the words for their rows."""

import numpy as np
import pytest
from PIL import Image

from mdm_studio.services.pretraining_report import read_sheet, sample_sheet, what_is_seen


def test_a_sheet_and_its_captions_come_back(tmp_path):
    originals = np.zeros((2, 3, 8, 8), np.float32)
    seen, made = np.full((1, 2, 3, 8, 8), -1, np.float32), np.ones((1, 2, 3, 8, 8), np.float32)
    sample_sheet(tmp_path / "a.png", originals, ["75 % hidden"], seen, made)
    rgb, captions = read_sheet(tmp_path / "a.png")
    assert captions == ("image", "75 % hidden", "made of it")
    assert rgb.shape == (24, 16, 3)
    assert rgb[::8, 0, 0].tolist() == [128, 0, 255]


def test_older_sheets_are_those_of_mdm(tmp_path):
    Image.new("RGB", (16, 56)).save(tmp_path / "a.png")
    assert read_sheet(tmp_path / "a.png")[1][:3] == ("image", "25 % hidden", "made of it")
    with pytest.raises(OSError, match="nowhere"):
        read_sheet(tmp_path / "nowhere.png")


@pytest.mark.parametrize(
    ("recipe", "settings", "t", "t_max", "words"),
    [
        ("mdm", {}, 250, 1000, "25 % hidden"),
        ("ddpm", {}, 250, 1000, "noise, t 250"),
        ("maskdm", {"ratio": 0.9}, 500, 1000, "90 % hidden, t 500"),
        ("maskdm", {"ratio": 0.0}, 500, 1000, "noise, t 500"),
        ("mae", {"ratio": 0.75}, 0, 0, "75 % hidden"),
        ("ddep", {"gamma": 0.95}, 0, 0, "with noise"),
        ("of others", {}, 3, 10, "seen at t 3"),
        ("of others", {}, 0, 0, "seen"),
    ],
)
def test_what_the_network_sees_in_words(recipe, settings, t, t_max, words):
    assert what_is_seen(recipe, settings, t, t_max) == words
