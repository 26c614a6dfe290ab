"""Pretraining jobs: exact resumption, crashes, budgets, every kind of image."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdm_studio.config import user_data_dir
from mdm_studio.engine.backbones import BackboneCard, find_backbone, load_backbone
from mdm_studio.engine.crops import CropSource, colour_jitter, survey
from mdm_studio.engine.pretrain import PretrainConfig
from mdm_studio.errors import ChannelsError, CheckpointError, InputError, JobError, NoImagesError, OutputError, UsageError
from mdm_studio.io.checkpoints import read_checkpoint, write_checkpoint
from mdm_studio.io.image_digest import image_digests
from mdm_studio.io.images import find_images
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.io.processes import own_name
from mdm_studio.nn.unet import UNetConfig
from mdm_studio.services import pretraining
from mdm_studio.services.jobs.board import JobBoard
from mdm_studio.services.jobs.driver import drive
from mdm_studio.services.jobs.places import register
from mdm_studio.services.pretraining import Job, plan, publish, run, save_due, snapshot
from mdm_studio.testing import blobs

TINY = UNetConfig(model_channels=32, channel_mult=(1, 1), num_res_blocks=1, middle_attention=False, stem=2, norm_groups=8)
CONFIG = PretrainConfig(crop=32, batch=2, warmup=3, precision="fp32", device="cpu")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(blobs(40, 50, seed=number)[0]).save(folder / f"{number}.png")
    return folder


def _job(images, out, *, steps=6, every=2, config=CONFIG, **budget):
    job, _ = plan(find_images([images]), name="tiny", config=config, steps=steps, checkpoint_every=every, **budget)
    folder = JobFolder(out)
    folder.create(dataclasses.replace(job, network=dataclasses.replace(TINY, in_channels=3)).to_json())
    return folder


def _weights(folder):
    return read_checkpoint(folder.list_checkpoints()[0])


def _steps(folder):
    return [row["step"] for row in folder.read_metrics()]


def test_a_job_survives_json(images):
    job, _ = plan(find_images([images]), name="tiny", config=CONFIG, minutes=1.5, channels=(0, 1, 2))
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(images, tmp_path):
    whole, parts = _job(images, tmp_path / "whole"), _job(images, tmp_path / "parts")
    list(run(whole))
    for stop_at in (1, 3):  # neither is a multiple of the checkpoint interval
        steps = run(parts)
        for progress in steps:
            if progress.step == stop_at:
                break
        steps.close()
        assert _weights(parts)[1]["step"] == stop_at
    list(run(parts))
    (a, a_facts), (b, b_facts) = _weights(whole), _weights(parts)
    assert a.keys() == b.keys()
    assert all((a[name] == b[name]).all() for name in a)
    assert {k: v for k, v in a_facts.items() if k != "elapsed_s"} == {k: v for k, v in b_facts.items() if k != "elapsed_s"}
    rows = [[(row["step"], row["loss"], row["grad_norm"], row["lr"]) for row in f.read_metrics()] for f in (whole, parts)]
    assert rows[0] == rows[1]
    assert [row[0] for row in rows[0]] == [1, 2, 3, 4, 5, 6]


def test_a_killed_worker_loses_at_most_an_interval_and_repeats_no_step(images, tmp_path, monkeypatch):
    """kill -9; in the end every step stands once in metrics.jsonl, with the losses of a calm run; the backbone is listed."""
    monkeypatch.setenv("MDM_STUDIO_NICE", "0")
    calm, killed = _job(images, tmp_path / "calm", steps=40), _job(images, tmp_path / "killed", steps=40, publish=True)
    list(run(calm))
    board = JobBoard()
    job = board.start(killed)
    while len(_steps(killed)) < 3:
        assert board.find(job.id).living, board.log(job.id)
        time.sleep(0.02)
    os.kill(killed.read_status()["pid"], signal.SIGKILL)
    while board.find(job.id).state != "interrupted":
        time.sleep(0.02)
    assert killed.list_checkpoints()
    assert [view.id for view in board.revive()] == [job.id]
    assert [view.state for view in board.follow(job.id, every=0.05)][-1] == "done", board.log(job.id)
    assert _steps(killed) == list(range(1, 41))
    assert [row["loss"] for row in killed.read_metrics()] == [row["loss"] for row in calm.read_metrics()]
    assert board.find(job.id).result == find_backbone("tiny") == user_data_dir() / "backbones" / "tiny"


def test_ctrl_c_saves_and_the_command_line_resumes(images, tmp_path):
    folder = _job(images, tmp_path / "job", steps=500, every=400)
    command = [sys.executable, "-m", "mdm_studio", "pretrain", str(images), "--out", str(folder.root), "--resume"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not folder.metrics.exists() or len(_steps(folder)) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in stderr.splitlines()[-1]
    saved = _weights(folder)[1]["step"]
    assert saved == _steps(folder)[-1] < 500
    done = subprocess.run([*command, "--steps", str(saved + 2), "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["state"] == "done"
    assert _steps(folder) == list(range(1, saved + 3))


def test_result_of_a_finished_job(images, tmp_path):
    folder = _job(images, tmp_path / "job")
    last = list(drive(folder))[-1]
    assert last.done == 1
    status = json.loads(folder.status.read_text())
    assert (status["state"], status["step"]) == ("done", 6)
    assert {path.name for path in folder.backbone.iterdir()} == {
        "backbone.json",
        "weights.safetensors",
        "README.md",
        "loss.png",
    }
    assert len(folder.list_checkpoints()) == 2
    assert len(list(folder.samples.glob("*.png"))) == 3
    training = load_backbone(find_backbone(str(folder.root))).card.training
    assert (training["steps"], training["image_digests"]) == (6, image_digests(images.iterdir()))
    assert len(list(run(folder))) == 2  # nothing left to do: the backbone is written again


def test_truncated_newest_checkpoint_falls_back_to_the_one_before(images, tmp_path):
    folder = _job(images, tmp_path / "job")
    steps = run(folder)
    for progress in steps:
        if progress.step == 5:
            break
    steps.close()
    newest = folder.list_checkpoints()[0]
    newest.write_bytes(newest.read_bytes()[:1000])
    list(run(folder))
    assert _steps(folder) == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_that_cannot_be_used_is_named_and_the_one_before_taken(images, tmp_path):
    """Whatever is wrong with it; and a leftover of a killed process beside it is removed."""
    made = _job(images, tmp_path / "made", steps=4)
    list(run(made))
    shutil.rmtree(made.backbone)
    newest = made.list_checkpoints()[0].name
    weight = next(name for name in _weights(made)[0] if name.startswith("model/") and name.endswith("weight"))
    damages = {
        "not finite": lambda tensors, facts: tensors.update({weight: tensors[weight] * float("nan")}),
        "float64": lambda tensors, facts: tensors.update({weight: tensors[weight].double()}),
        "does not fit this network": lambda tensors, facts: tensors.update({weight: tensors[weight][:1]}),
        "does not fit": lambda tensors, facts: tensors.update({"optimizer/many/slashes/exp_avg": tensors[weight].clone()}),
        "does not say where": lambda tensors, facts: facts.pop("averaged"),
        "does not say": lambda tensors, facts: facts.update(step="four"),
        "got `null`": lambda tensors, facts: facts.pop("elapsed_s"),
        "a pipe": None,
    }
    for number, (words, damage) in enumerate(damages.items()):
        folder = JobFolder(shutil.copytree(made.root, tmp_path / str(number)))
        path = folder.checkpoints / newest
        if damage is None:
            path.rename(folder.checkpoints / "step-00000003.safetensors.bak")
            path.mkdir()
            folder.write_status(state="paused")
        else:
            tensors, facts = read_checkpoint(path)
            damage(tensors, facts)
            write_checkpoint(path, tensors, facts)
        (folder.checkpoints / f".{newest}.1-1-{own_name().rpartition('-')[2]}.0123abcd.part").touch()
        steps = drive(folder)
        report = next(each for each in steps if each.step)
        steps.close()
        assert report.step == 3
        assert [path.name for path in folder.checkpoints.iterdir() if path.name.startswith(".")] == []
        if damage is not None:
            warning = report.facts["warning"]
            assert words in warning
            assert warning.endswith("goes on from step 2, which was saved before")
            assert warning in folder.read_log()


def test_a_job_that_no_machine_holds_takes_no_memory(images, tmp_path):
    folder = _job(images, tmp_path / "job")
    for change, words in (
        ({"network": {"model_channels": 1 << 19}}, "GB to train and this machine has"),
        ({"network": {"model_channels": 1 << 21}}, "at most 1048576"),
        ({"network": {"num_res_blocks": 10**5}}, "blocks"),
        ({"config": {"batch": 10**9}}, "crop, batch and scales"),
        ({"config": {"lr": "fast"}}, "Expected `float`"),
        ({"images": []}, "length >= 1"),
        ({"images": 3}, "Expected `array`"),
        ({"steps": 0, "minutes": None}, ">= 1"),
        ({"steps": None, "minutes": None}, "no budget"),
        ({"recipe": "nothing"}, "no recipe called"),
        ({"recipe_settings": {"patch": [1]}}, "its recipe"),
    ):
        asked = folder.settings()
        asked |= {key: asked[key] | value if isinstance(value, dict) else value for key, value in change.items()}
        with pytest.raises(JobError, match=words) as caught:
            list(run(_with(folder, asked)))
        assert "\n" not in str(caught.value)


def _with(folder, asked):
    other = JobFolder(folder.root.with_name("other"))
    other.root.mkdir(exist_ok=True)
    other.job.write_text(json.dumps(asked))
    return other


def test_no_readable_checkpoint_is_an_error_not_a_new_start(images, tmp_path):
    folder = _job(images, tmp_path / "job")
    list(run(folder))
    for path in folder.list_checkpoints():
        path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match="whole safetensors"):
        list(run(folder))


def test_disk_full_while_saving_keeps_the_older_checkpoint(images, tmp_path, monkeypatch):
    folder = _job(images, tmp_path / "job")
    real = pretraining.write_checkpoint

    def full(path, *args):
        if "00000004" in path.name:
            raise OutputError("the disk is full")
        real(path, *args)

    monkeypatch.setattr(pretraining, "write_checkpoint", full)
    with pytest.raises(OutputError, match="full"):
        list(drive(folder))
    assert json.loads(folder.status.read_text())["state"] == "failed"
    assert [path.name for path in folder.list_checkpoints()] == ["step-00000002.safetensors"]


def test_a_loss_that_is_no_number_stops_the_job(images, tmp_path):
    folder = _job(images, tmp_path / "job", config=dataclasses.replace(CONFIG, lr=1e30), steps=50)
    with pytest.raises(JobError, match="smaller --lr"):
        list(drive(folder))
    assert json.loads(folder.status.read_text())["state"] == "failed"


def test_minutes_end_a_job(images, tmp_path):
    folder = _job(images, tmp_path / "job", steps=None, minutes=0.005)
    reports = list(run(folder))
    assert 1 <= len(reports) < 500
    assert reports[-1].facts["result"] == str(folder.backbone)


def test_the_loss_falls(images, tmp_path):
    folder = _job(images, tmp_path / "job", steps=60, every=1000, config=dataclasses.replace(CONFIG, lr=1e-3, batch=4))
    losses = [progress.facts["loss"] for progress in run(folder)][:-2]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_images_that_vanished(images, tmp_path):
    folder = _job(images, tmp_path / "job")
    (images / "1.png").unlink()
    with pytest.raises(JobError, match=r"1 images of this job are gone.*1\.png"):
        list(run(folder))


@pytest.mark.parametrize("first", ["job", "other files"])
def test_a_folder_in_use_is_left_alone(images, tmp_path, first):
    out = tmp_path / "out"
    if first == "job":
        _job(images, out)
    else:
        out.mkdir()
        (out / "thesis.tex").write_text("")
    with pytest.raises(JobError, match="--out"):
        _job(images, out)


def test_no_job_to_resume(tmp_path):
    with pytest.raises(JobError, match="holds no job"):
        list(run(JobFolder(tmp_path)))


def test_unreadable_images_are_named_and_left_out(images):
    (images / "broken.png").write_bytes(b"x")
    job, unreadable = plan(find_images([images]), name="a", config=CONFIG, steps=1)
    assert len(job.images) == 3
    assert "broken.png" in unreadable[0]
    for path in images.glob("[0-9].png"):
        path.unlink()
    with pytest.raises(NoImagesError, match=r"broken\.png"):
        plan(find_images([images]), name="a", config=CONFIG, steps=1)


def test_a_budget_is_needed(images):
    with pytest.raises(UsageError, match="--steps N or --minutes M"):
        plan(find_images([images]), name="a", config=CONFIG)


def _shaped(folder, **arrays):
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return find_images([folder])


@pytest.mark.parametrize(
    ("arrays", "channels"),
    [
        ({"grey": np.zeros((40, 40), np.uint8), "rgb": np.zeros((40, 40, 3), np.uint8)}, 3),
        (
            {"sixteen": np.zeros((40, 40), np.uint16), "small": np.zeros((9, 50), np.uint8), "one": np.zeros((1, 1), np.uint8)},
            3,
        ),
        ({"many": np.zeros((6, 40, 40), np.uint16), "grey": np.zeros((40, 40), np.uint8)}, 6),
    ],
    ids=["grey and colour", "16-bit, smaller than the crop, 1x1", "six channels and grey"],
)
def test_every_kind_of_image_gives_crops(tmp_path, arrays, channels):
    paths = _shaped(tmp_path / "i", **arrays)
    job, _ = plan(paths, name="a", config=CONFIG, steps=1)
    assert job.network.in_channels == channels
    planes, _ = survey(paths, None, "percentile")
    batch = CropSource(planes, crop=32, batch=8, in_channels=channels, seed=0).batch(0)
    assert batch.shape == (8, channels, 32, 32)
    assert batch.dtype == np.float32
    assert np.abs(batch).max() <= 1


def test_channels_that_differ(tmp_path):
    paths = _shaped(tmp_path / "i", five=np.zeros((5, 40, 40), np.uint8), six=np.zeros((6, 40, 40), np.uint8))
    with pytest.raises((InputError, ChannelsError), match="--channels"):
        plan(paths, name="a", config=CONFIG, steps=1)


def test_batches_depend_on_seed_and_step_alone_and_the_thread_ends(images):
    planes, _ = survey(find_images([images]), None, "percentile")
    one, other = (CropSource(planes, crop=32, batch=2, in_channels=3, seed=0, max_bytes=n) for n in (1 << 30, 7000))
    ahead = other.batches(4)
    assert np.array_equal(one.batch(4), next(ahead))  # the second one reads crop by crop
    assert np.array_equal(one.batch(5), next(ahead))
    assert not np.array_equal(one.batch(4), one.batch(5))
    ahead.close()
    import threading

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("crops")]


def test_crops_at_a_working_scale_are_binned(images):
    """A crop at scale 2 is the mean of squares of what the crop at scale 1 sees."""
    planes, _ = survey(find_images([images]), None, "percentile")
    coarse = CropSource(planes, crop=16, batch=4, in_channels=3, seed=0, scales=(2,)).batch(0)
    fine = CropSource(planes, crop=32, batch=4, in_channels=3, seed=0).batch(0)
    assert coarse.shape == (4, 3, 16, 16)
    assert np.allclose(coarse[0], fine[0].reshape(3, 16, 2, 16, 2).mean((2, 4)), atol=1e-5)
    wide = CropSource(planes, crop=32, batch=6, in_channels=3, seed=0, scales=(1, 8)).batch(0)
    assert wide.shape == (6, 3, 32, 32)  # at scale 8 the crop is far larger than the image


def test_jitter_changes_colours_and_polarity_but_not_shapes(images):
    planes, _ = survey(find_images([images]), None, "percentile")
    plain, jittered = (CropSource(planes, crop=32, batch=16, in_channels=3, seed=0, jitter=j) for j in (False, True))
    first = plain._one(np.random.default_rng(3)).mean(0).ravel()
    looks = [colour_jitter(plain._one(np.random.default_rng(3)), np.random.default_rng(n)) for n in range(12)]
    correlations = [np.corrcoef(first, look.mean(0).ravel())[0, 1] for look in looks]
    assert min(correlations) < -0.7
    assert max(correlations) > 0.7
    assert np.abs(jittered.batch(0)).max() <= 1
    assert np.array_equal(jittered.batch(2), jittered.batch(2))


def test_a_run_may_start_from_a_backbone(images, tmp_path):
    """The first loss is that of the trained weights, the shape is the backbone's, and the card tells."""
    first = _job(images, tmp_path / "first", steps=30, every=30)
    list(run(first))
    job, _ = plan(find_images([images]), name="second", config=CONFIG, steps=1, start_from=str(first.root))
    assert job.network == Job.from_json(first.settings()).network
    second = JobFolder(tmp_path / "second")
    second.create(job.to_json())
    list(run(second))
    trained, fresh = (
        np.mean([row["loss"] for row in folder.read_metrics()[: 1 if folder is second else 3]]) for folder in (second, first)
    )
    assert trained < fresh
    assert json.loads((second.backbone / "backbone.json").read_text())["training"]["start_from"] == "backbone"


def test_a_backbone_of_other_channels_is_no_start(images, tmp_path):
    first = _job(images, tmp_path / "first", steps=1, every=1)
    list(run(first))
    many = _shaped(tmp_path / "i", many=np.zeros((6, 40, 40), np.uint16))
    with pytest.raises(UsageError, match="reads 3 channels"):
        plan(many, name="a", config=CONFIG, steps=1, start_from=str(first.root))


def test_the_working_scale_of_pretraining_is_the_one_features_are_read_at(images, tmp_path):
    folder = _job(images, tmp_path / "job", steps=1, every=1, config=dataclasses.replace(CONFIG, scales=(1, 2)))
    list(run(folder))
    card = BackboneCard.read(folder.backbone)
    assert (card.scales, card.filters) == ((1, 2), True)


def test_a_backbone_to_start_from_that_is_gone(images, tmp_path):
    first = _job(images, tmp_path / "first", steps=1, every=1)
    list(run(first))
    job, _ = plan(find_images([images]), name="second", config=CONFIG, steps=1, start_from=str(first.root))
    second = JobFolder(tmp_path / "second")
    second.create(job.to_json())
    shutil.rmtree(first.backbone)
    with pytest.raises(JobError, match=r"starts from is gone.*put it back"):
        list(run(second))


def test_snapshots_can_be_loaded_and_the_newest_two_are_kept(images, tmp_path):
    folder = _job(images, tmp_path / "job", steps=8)
    assert snapshot(folder) is None
    made = []
    for report in run(folder):
        if report.step % 2 == 0 and report.step not in {step for step, _ in made}:
            made.append((report.step, snapshot(folder)))
    assert [path.name for _, path in made] == [f"step-{step:08d}" for step in (2, 4, 6, 8)]
    assert sorted(path.name for path in folder.snapshots.iterdir()) == ["step-00000006", "step-00000008"]
    loaded = load_backbone(made[-1][1])
    assert loaded.card.name == "tiny at step 8"
    assert loaded.card.digest == BackboneCard.read(folder.backbone).digest  # of the last step it is the result itself
    damaged = folder.list_checkpoints()[0]
    damaged.write_bytes(b"x")
    shutil.rmtree(made[-1][1])
    assert snapshot(folder) == made[-2][1]


def test_publishing_takes_a_free_name_and_makes_no_second_copy(images, tmp_path):
    folder = _job(images, tmp_path / "job", steps=2)
    first = snapshot_of(folder, 1)
    second = list(run(folder))[-1].facts["result"]
    paths = [publish(first, "my nuclei"), publish(Path(second), "my nuclei"), publish(first, "my nuclei")]
    assert [path.name for path in paths] == ["my-nuclei", "my-nuclei-2", "my-nuclei"]
    assert publish(first, "mdm-nuclei").name == "mdm-nuclei-2"  # the bundled one is not covered
    card = load_backbone(find_backbone("my-nuclei-2")).card
    assert (card.name, card.summary) == ("my-nuclei-2", "3 images of images, 0 min of pretraining")


def snapshot_of(folder, step):
    steps = run(folder)
    while next(steps).step < step:
        pass
    steps.close()
    return snapshot(folder)


@pytest.mark.parametrize(
    ("step", "since_s", "cost_s", "first", "due"),
    [
        (200, 1, 9, False, True),  # as asked for
        (20, 5, 0, True, True),  # early, for whoever is watching
        (50, 30, 1, False, True),
        (50, 10, 1, False, False),  # a network so large that saving it would take the time
        (21, 5, 0, True, False),
        (3, 61, 0, True, True),  # slow steps
        (3, 61, 0, False, False),
        (350, 301, 60, False, True),  # what a power cut can cost
    ],
)
def test_when_a_job_saves(step, since_s, cost_s, first, due):
    assert save_due(step, 200, since_s, cost_s, first=first) is due


def test_a_folder_removed_under_a_run_is_not_made_again(images, tmp_path):
    folder = _job(images, tmp_path / "job", steps=500)
    steps = drive(folder)
    next(steps)
    shutil.rmtree(folder.root)
    with pytest.raises(JobError, match=r"folder .* is gone .*start a new one"):
        list(steps)
    assert not folder.root.exists()


def test_job_json_of_another_kind_or_a_newer_version(images, tmp_path):
    job, _ = plan(find_images([images]), name="a", config=CONFIG, steps=1)
    with pytest.raises(JobError, match="update MDM Studio"):
        Job.from_json(job.to_json() | {"version": 99})
    with pytest.raises(JobError, match="not that of a pretraining"):
        Job.from_json({"kind": "export"})


def test_a_job_folder_of_version_0_1_goes_on(images, tmp_path):
    """It has no dates, no place to be published, and its checkpoints know little."""
    folder = _job(images, tmp_path / "job", steps=4)
    snapshot_of(folder, 2)
    shutil.rmtree(folder.snapshots)
    tensors, facts = _weights(folder)
    known = {key: value for key, value in facts.items() if key in ("step", "averaged", "schedule", "elapsed_s")}
    write_checkpoint(folder.list_checkpoints()[0], tensors, known)
    folder.job.write_text(json.dumps({key: value for key, value in folder.settings().items() if key != "publish"}))
    old = {"state": "paused", "step": 2, "steps": 4, "done": 0.5, "loss": 0.5, "images_per_s": None, "device": "cpu", "pid": 1}
    folder.status.write_text(json.dumps(old))
    view = JobBoard().find(register(folder.root))
    assert (view.state, view.step, view.facts["loss"]) == ("paused", 2, 0.5)
    assert load_backbone(snapshot(folder)).card.training["device"] == "cpu"
    list(drive(folder))
    assert (_steps(folder), JobBoard().find(view.id).state) == ([1, 2, 3, 4], "done")
