"""Membership attacks by a number for each image."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mdm_studio.engine.membership import attack, nearness, surprise


def test_the_area_is_that_of_the_roc_curve_and_the_interval_holds_it():
    rng = np.random.default_rng(0)
    trained, held_out = rng.normal(0, 1, 80), rng.normal(0.8, 1, 60)
    found = attack(trained, held_out, seed=0)
    truth = np.r_[np.ones(80), np.zeros(60)]
    assert found.auc == pytest.approx(roc_auc_score(truth, -np.r_[trained, held_out]))
    assert 0.5 < found.low < found.auc < found.high < 1
    assert found.high - found.low == pytest.approx(0.17, abs=0.04)  # 3.9 standard errors of Hanley and McNeil 1982
    assert found.p < 1e-3
    assert 0.05 < found.found < found.auc


def test_the_same_numbers_reveal_nothing():
    numbers = np.linspace(0, 1, 30)
    found = attack(numbers, numbers, seed=0)
    assert found.auc == 0.5
    assert found.low < 0.5 < found.high
    assert found.p > 0.9
    assert found.found < 0.1


def test_known_images_stand_apart():
    found = attack([0.1, 0.2], [1.0, 2.0, 3.0], seed=0)
    assert (found.auc, found.found, found.trained, found.held_out) == (1, 1, 2, 3)
    with pytest.raises(ValueError, match="each kind"):
        attack([0.1], [], seed=0)


def test_surprise_is_free_of_contrast():
    contrast = np.geomspace(0.001, 1, 20)
    known = np.arange(20) % 5 == 0
    error = 0.3 * contrast**0.7 * np.where(known, 0.5, 1)
    found = surprise(error, contrast)
    assert found[~known] == pytest.approx(0, abs=0.02)
    assert found[known] == pytest.approx(-1, abs=0.05)
    assert surprise([1, 2, 4], [0.5, 0.5, 0.5]).tolist() == pytest.approx([-1, 0, 1], abs=1e-5)
    assert np.isfinite(surprise([0, 0.1], [0, 0.2])).all()


def test_nearness_of_copies_and_of_strangers():
    rng = np.random.default_rng(1)
    strangers = rng.uniform(0.2, 0.6, (2, 40, 12)).astype(np.float32)
    found = nearness(*strangers, seed=0)
    assert found.low < 0.5 < found.high
    assert found.p > 0.05
    copies = strangers[0].copy()
    copies[np.arange(40), np.arange(40) % 12] = 0.95
    found = nearness(copies, strangers[1], seed=0)
    assert found.share == 1
    assert found.p < 0.01
    assert (found.pictures, found.images) == (40, 12)


def test_pairs_that_do_not_count_and_unequal_numbers():
    own = np.array([[np.nan, 0.3], [0.3, np.nan]], np.float32)
    assert nearness(np.full((2, 2), 0.2, np.float32), own, seed=0).share == 0
    with pytest.raises(ValueError, match="as many"):
        nearness(own, own[:, :1], seed=0)
