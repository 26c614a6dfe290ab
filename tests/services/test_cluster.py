"""The same export from workers of real dask clusters on this machine: scheduler and workers are processes of their own."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
import warnings

import pytest

from mdm_studio.engine.objects import ObjectOptions
from mdm_studio.errors import ClassifierError, OutputError, UsageError
from mdm_studio.services.export import export
from mdm_studio.services.export_request import ExportRequest, FileResult, PredictOptions, TileProgress

QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
OPTIONS = {"probabilities": True, "objects": ObjectOptions("watershed"), "tables": ("csv",)}
WITHOUT_US = "import sys; sys.modules['mdm_studio'] = None; from distributed.cli.{0} import main; main()"


class Cluster:
    """A scheduler on a free port, and workers that can be added and killed."""

    def __init__(self, stack):
        self._stack = stack
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        code = WITHOUT_US.format("dask_scheduler")  # it needs nothing of ours
        self.scheduler = self._start(["-c", code, "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"])

    def worker(self, *, with_us=True):
        main = ["-m", "distributed.cli.dask_worker"] if with_us else ["-c", WITHOUT_US.format("dask_worker")]
        return self._start([*main, self.address, "--nthreads", "1", "--no-dashboard", "--no-nanny"])

    def _start(self, arguments):
        process = subprocess.Popen([sys.executable, *arguments], **QUIET)
        self._stack.callback(lambda: (process.kill(), process.wait()))
        return process


@pytest.fixture
def cluster():
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield Cluster(stack)


@pytest.fixture
def alone(export_set, tmp_path):
    """Every file of the export in this process, but for its report."""
    list(export(request(export_set, tmp_path / "alone")))
    return files(tmp_path / "alone")


def request(given, out, **where):
    return ExportRequest(given.classifier, given.images, PredictOptions(out, **OPTIONS), **where)


def files(out):
    """Bytes of every file; but for the identifier of its own that OME gives every TIFF."""
    paths = (path for path in out.rglob("*") if path.is_file() and path.name != "export.json")
    return {path.relative_to(out).as_posix(): re.sub(rb'UUID="[^"]*"', b"", path.read_bytes()) for path in paths}


def states(events):
    return sorted(event.state for event in events if isinstance(event, FileResult))


def test_same_files_bit_for_bit_though_a_worker_is_killed(cluster, alone, export_set, tmp_path):
    """Its image goes to the other one; what it left unfinished is gone in the end. The scheduler has no MDM Studio."""
    victim = cluster.worker()
    events = export(request(export_set, tmp_path / "there", scheduler=cluster.address))
    seen = []
    for event in events:
        seen.append(event)
        if isinstance(event, TileProgress) and victim.poll() is None:  # it is at an image
            victim.kill()
            cluster.worker()
    assert victim.poll() == -9
    assert states(seen) == ["done"] * 3
    assert files(tmp_path / "there") == alone
    assert not [path for path in (tmp_path / "there").rglob("*") if path.name.startswith(".")]


def test_processes_of_this_machine(alone, export_set, tmp_path):
    """From the command line, which ends by itself."""
    arguments = ["--probabilities", "--objects", "--watershed", "--table", "--no-cache", "--workers", "1", "--json"]
    images = export_set.images[0].parent
    command = [sys.executable, "-m", "mdm_studio", "predict", export_set.classifier, images, "--out", tmp_path / "w"]
    outcome = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=100, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout)["done"] == 3
    assert files(tmp_path / "w") == alone
    assert "distributed" not in outcome.stderr


def test_a_stop_leaves_the_images_that_wait(cluster, export_set, tmp_path):
    cluster.worker()
    seen = list(export(request(export_set, tmp_path, scheduler=cluster.address), stop=lambda: True))
    assert states(seen) == ["stopped"] * 3
    assert json.loads((tmp_path / "export.json").read_text())["state"] == "stopped"
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_a_worker_gives_up_between_tiles(export_set, tmp_path, monkeypatch):
    """As soon as it sees the sign, which is made here when it tells of its first tile."""
    from mdm_studio.io.classifier_file import classifier_digest, read_classifier
    from mdm_studio.services.cluster import predict_one

    sign, told = tmp_path / "sign", []

    class Worker:
        def log_event(self, topic, message):
            told.append((topic, message["image"], message["done"]))
            sign.touch()

    monkeypatch.setattr("distributed.get_worker", Worker)
    order = request(export_set, tmp_path / "m").to_json()
    digest = classifier_digest(*read_classifier(export_set.classifier))
    image = str(export_set.images[0])
    found = predict_one(order, digest, image, "topic", str(sign))
    assert (found["state"], told) == ("stopped", [("topic", image, 1)])
    assert not list((tmp_path / "m").rglob("*.png"))
    assert predict_one(order, digest, image, "topic", str(sign))["message"] == "stopped before it was begun"
    sign.unlink()
    with pytest.raises(ClassifierError, match="another classifier"):
        predict_one(order, "0" * 32, image, "topic", str(sign))


def test_a_scheduler_that_goes_away(cluster, export_set, tmp_path):
    cluster.worker()
    begin = time.monotonic()
    wanted = request(export_set, tmp_path, scheduler=cluster.address)
    with pytest.raises(OutputError, match="scheduler has gone away"):
        list(export(wanted, stop=lambda: cluster.scheduler.kill() is not None))
    assert time.monotonic() - begin < 60
    assert json.loads((tmp_path / "export.json").read_text())["state"] == "failed"


@pytest.mark.parametrize(("workers", "words"), [(0, "has no workers"), (1, "lacks MDM Studio")])
def test_workers_that_cannot_do_it(cluster, export_set, tmp_path, monkeypatch, workers, words):
    monkeypatch.setattr("mdm_studio.services.cluster._PATIENCE", "3s" if workers == 0 else "30s")
    for _ in range(workers):
        cluster.worker(with_us=False)
    with pytest.raises(UsageError, match=words):
        list(export(request(export_set, tmp_path, scheduler=cluster.address)))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "htp://x:1"])
def test_no_scheduler_is_said_in_words(export_set, tmp_path, monkeypatch, address):
    monkeypatch.setattr("mdm_studio.services.cluster._PATIENCE", "1s")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UsageError, match="no dask scheduler answers"):
            list(export(request(export_set, tmp_path, scheduler=address)))


def test_both_at_once_contradict_each_other(export_set, tmp_path):
    with pytest.raises(UsageError, match="contradict"):
        request(export_set, tmp_path, scheduler="tcp://127.0.0.1:1", workers=2)
