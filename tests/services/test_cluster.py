"""The same masks from workers of a real dask cluster on this machine."""

import subprocess
import sys
import time
import warnings

import pytest

from mdm_studio.errors import UsageError
from mdm_studio.services.batch import PredictOptions
from mdm_studio.services.cluster import RemoteClassifier, predict_on_cluster


@pytest.fixture
def fitted(tiny_backbone, images_and_labels, tmp_path):
    from mdm_studio.engine.heads import EnsembleConfig
    from mdm_studio.services.fitting import FitRequest, fit_classifier

    request = FitRequest(
        (str(images_and_labels[0]),), images_and_labels[1], str(tiny_backbone), ensemble=EnsembleConfig(members=2)
    )
    steps = fit_classifier(request, None)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            finished.value.save(tmp_path / "a.mdm")
            return tmp_path / "a.mdm"


def test_same_masks_as_here(fitted, images_and_labels, tmp_path):
    """A scheduler and two workers as processes of their own, as a user starts them."""
    port = 8700 + hash(str(tmp_path)) % 200
    address = f"tcp://127.0.0.1:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"],
        **quiet,
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny"],
            **quiet,
        )
        for _ in range(2)
    ]
    try:
        time.sleep(2)
        remote = RemoteClassifier(fitted, None, "cpu", None, 10**9)
        paths = sorted(images_and_labels[0].iterdir())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = list(predict_on_cluster(address, remote, paths, PredictOptions(tmp_path / "there")))
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()
    assert sorted(result.state for result in results) == ["done"] * 3
    from mdm_studio.services.batch import predict_files
    from mdm_studio.services.classifier import load_classifier

    list(predict_files(load_classifier(fitted), paths, PredictOptions(tmp_path / "here"), None))
    for path in paths:
        assert (tmp_path / "there" / path.name).read_bytes() == (tmp_path / "here" / path.name).read_bytes()


def test_no_scheduler_is_said_in_words(fitted, images_and_labels, tmp_path, monkeypatch):
    remote = RemoteClassifier(fitted, None, "cpu", None, 10**9)
    monkeypatch.setattr("mdm_studio.services.cluster._PATIENCE", "1s")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UsageError, match="no dask scheduler answers"):
            list(predict_on_cluster("tcp://127.0.0.1:1", remote, [], PredictOptions(tmp_path / "m")))
