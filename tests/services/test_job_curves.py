"""A job's curves, read bit by bit."""

import json

import numpy as np
import pytest

from mdm_studio.io.job_folder import JobFolder
from mdm_studio.services.job_curves import JobLook, look_into


@pytest.fixture
def folder(tmp_path):
    return JobFolder(tmp_path / "job")


def write(folder, steps, mode="a"):
    folder.root.mkdir(exist_ok=True)
    with folder.metrics.open(mode) as file:
        file.writelines(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in steps)


def test_an_empty_folder_has_nothing_to_show(folder):
    found = look_into(folder)
    assert (len(found.losses), found.samples, found.checkpoint) == (0, (), None)
    assert [len(curve) for curve in found.curves()] == [0, 0]


def test_only_what_is_new_is_read_and_a_half_line_waits(folder):
    write(folder, range(1, 11))
    first = look_into(folder)
    assert first.steps.tolist() == list(range(1, 11))
    with folder.metrics.open("a") as file:
        file.write('{"step": 11, "lo')
    assert look_into(folder, first).steps.tolist() == first.steps.tolist()
    with folder.metrics.open("a") as file:
        file.write('ss": 0.5}\nnonsense\n')
    second = look_into(folder, first)
    assert second.steps.tolist() == list(range(1, 12))
    assert second.losses[-1] == 0.5
    assert look_into(folder, second).read_to == folder.metrics.stat().st_size


@pytest.mark.parametrize("again", [range(1, 6), range(1, 30)])
def test_a_job_that_was_rewound_is_read_anew(folder, again):
    write(folder, range(1, 21))
    before = look_into(folder)
    write(folder, again, "w")
    assert look_into(folder, before).steps.tolist() == list(again)


def test_another_folder_is_another_job(folder, tmp_path):
    write(folder, range(1, 5))
    assert len(look_into(JobFolder(tmp_path / "other"), look_into(folder)).steps) == 0


def test_pictures_and_checkpoints_by_step(folder):
    for name in ("samples/step-00000200.png", "samples/step-00000050.png", "checkpoints/step-00000050.safetensors"):
        path = folder.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = look_into(folder)
    assert [step for step, _ in found.samples] == [50, 200]
    assert found.checkpoint == 50


def test_a_long_curve_is_thinned_and_its_mean_is_the_mean(tmp_path):
    rng = np.random.default_rng(0)
    look = JobLook(tmp_path, np.arange(1, 10_001), rng.random(10_000))
    raw, mean = look.curves()
    assert len(raw) == 2000
    assert mean[0].tolist() == pytest.approx([200, look.losses[:200].mean()])
    assert len(mean) <= 2000
    young = JobLook(tmp_path, np.arange(1, 9), np.arange(8.0)).curves()[1]
    assert young[0].tolist() == [2, 0.5]
    assert mean[-1, 1] == pytest.approx(look.losses[int(mean[-1, 0]) - 200 : int(mean[-1, 0])].mean())
