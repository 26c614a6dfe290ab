"""Pretraining by several processes on CPUs: the same job folder, the same loss, one end."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from PIL import Image

from mdm_studio.cli.launch import processes_wanted
from mdm_studio.engine.backbones import find_backbone, load_backbone
from mdm_studio.engine.pretrain import PretrainConfig
from mdm_studio.io.images import find_images
from mdm_studio.io.job_folder import JobFolder
from mdm_studio.services.pretraining import plan, run
from mdm_studio.testing import blobs

_ACCELERATE = {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}


@pytest.mark.parametrize(
    ("environment", "launcher", "wanted"),
    [
        (_ACCELERATE, "accelerate launch --cpu --num_processes 2 -m mdm_studio.cli pretrain", 2),
        (_ACCELERATE, "accelerate launch --cpu --num-processes=3 script.py", 3),
        (_ACCELERATE, "accelerate launch --cpu script.py", 0),
        (_ACCELERATE | {"WORLD_SIZE": "2"}, "python -m torch.distributed.run --nproc_per_node 2", 1),
        (_ACCELERATE | {"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun -n 2", 1),
        ({"ACCELERATE_USE_CPU": "False", "MASTER_ADDR": "a"}, "accelerate launch --num_processes 2", 1),
        ({"ACCELERATE_USE_CPU": "True"}, "accelerate launch --cpu --num_processes 1", 1),
        ({}, "bash", 1),
    ],
)
def test_how_many_processes_are_wanted(environment, launcher, wanted):
    assert processes_wanted(environment, launcher.split()) == wanted


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(blobs(80, 90, seed=number)[0]).save(folder / f"{number}.png")
    return folder


def _by_two(images, out, *options):
    port = 20_000 + os.getpid() % 20_000
    command = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(port)]
    command += ["-m", "mdm_studio.cli", "pretrain", str(images), "--out", str(out), "--device", "cpu"]
    command += ["--precision", "fp32", "--crop", "32", "--lr", "1e-2", *map(str, options)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *command], **pipes, env=os.environ | {"OMP_NUM_THREADS": "1"})


def _rank(process, rank):
    """The process of that rank among the descendants of a launcher."""
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if child.environ().get("RANK") == str(rank):
                return child
        except psutil.Error:
            continue
    raise AssertionError(f"no process of rank {rank}")


def _losses(folder):
    return [row["loss"] for row in folder.read_metrics()]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_processes_stop_together_resume_and_learn_as_one(images, tmp_path):
    """Told to stop on the second process only; resumed by two; the losses are those of one with twice the batch."""
    two, one = JobFolder(tmp_path / "two"), JobFolder(tmp_path / "one")
    process = _by_two(images, two.root, "--batch", 4, "--steps", 100_000)
    while not two.metrics.exists() or len(two.read_metrics()) < 2:
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.05)
    _rank(process, 1).send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said[-3000:]
    assert said.count("stopped and saved") == 1  # the first process speaks alone
    assert json.loads(two.status.read_text())["state"] == "paused"
    steps = len(two.read_metrics())
    assert steps < 24
    assert two.list_checkpoints()[0] == two.checkpoint_path(steps)

    process = _by_two(images, two.root, "--resume", "--steps", 24)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 0, said[-3000:]
    assert [row["step"] for row in two.read_metrics()] == list(range(1, 25))
    card = load_backbone(find_backbone(str(two.root))).card
    assert (card.training["crops_seen"], json.loads(two.status.read_text())["state"]) == (8 * 24, "done")

    config = PretrainConfig(crop=32, batch=8, lr=1e-2, precision="fp32", device="cpu")
    one.create(plan(find_images([images]), name="one", config=config, steps=24)[0].to_json())
    list(run(one))
    shared, alone = np.array(_losses(two)), np.array(_losses(one))
    # the same curve but for other crops and masks: down together in the first steps, then within the spread of single steps
    assert abs(shared[:8].mean() - alone[:8].mean()) < 0.02
    assert abs(shared[8:].mean() - alone[8:].mean()) < 0.06
    assert shared[-8:].mean() < shared[:4].mean() - 0.1


_NAN_ON_ONE = r"""
import os
import numpy as np
from mdm_studio.engine.pretrain import PretrainConfig, Pretrainer
from mdm_studio.engine.recipes.mdm import MDM
from mdm_studio.errors import JobError
from mdm_studio.nn.unet import UNetConfig
tiny = UNetConfig(model_channels=32, channel_mult=(1, 1), num_res_blocks=1, middle_attention=False, stem=2, norm_groups=8)
trainer = Pretrainer(tiny, MDM(), PretrainConfig(crop=32, batch=2, precision="fp32", device="cpu"))
rank = trainer.accelerator.process_index
assert trainer.accelerator.num_processes == 2
assert trainer.agree(rank == 1, 5.0 + rank) == (True, 5.0)
batches = np.random.default_rng(rank).uniform(-1, 1, (4, 2, 3, 32, 32)).astype(np.float32)
batches[2] *= np.nan if rank else 1
try:
    list(trainer.steps(batches))
except JobError as error:
    os.write(1, f"stopped after {trainer.step} {error}\n".encode())  # at once: two processes write here
trainer.step += rank
try:
    trainer.agree(False, 0.0)
except JobError as error:
    os.write(1, f"{error}\n".encode())
trainer.close()
os._exit(0)  # threads of gloo abort an interpreter that ends, now and then
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_loss_that_is_no_number_on_one_process_stops_both(tmp_path):
    script = tmp_path / "nan.py"
    script.write_text(_NAN_ON_ONE)
    port = str(20_001 + os.getpid() % 20_000)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("stopped after 2") == 2
    assert done.stdout.count("different steps (2, 3)") == 2
