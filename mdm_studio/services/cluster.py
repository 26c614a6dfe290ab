"""Prediction spread over the workers of a ``dask.distributed`` cluster, one image a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mdm_studio.errors import UsageError
from mdm_studio.io.feature_cache import FeatureCache
from mdm_studio.services.batch import FileResult, PredictOptions, predict_file
from mdm_studio.services.classifier import Classifier, load_classifier

_PATIENCE = "10s"  # for a scheduler to answer


@dataclass(frozen=True)
class RemoteClassifier:
    """What a worker needs to load the classifier; every path must be readable from every worker."""

    path: Path
    backbone: str | None
    device: str
    cache: Path | None
    cache_bytes: int


def predict_on_cluster(
    address: str, classifier: RemoteClassifier, paths: Sequence[Path], options: PredictOptions
) -> Iterator[FileResult]:
    """Predict every image on the cluster whose scheduler is at `address`; yields each result as it comes.

    Raises
    ------
    UsageError
        If ``distributed`` is not installed or no scheduler answers.
    """
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise UsageError("--scheduler needs the package distributed; install mdm-studio[cluster]") from error
    try:
        client = Client(address, timeout=_PATIENCE)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no dask scheduler answers at {address}; start one with `dask scheduler` and pass the address it prints"
        ) from error
    with client:
        futures = [client.submit(_predict_one, classifier, path, options, pure=False) for path in paths]
        for future in as_completed(futures):  # type: ignore[no-untyped-call]
            yield future.result()


@lru_cache(maxsize=1)
def _loaded(remote: RemoteClassifier) -> Classifier:
    return load_classifier(remote.path, backbone=remote.backbone, device=remote.device)


def _predict_one(remote: RemoteClassifier, path: Path, options: PredictOptions) -> FileResult:
    """Runs on a worker."""
    cache = FeatureCache(remote.cache, max_bytes=remote.cache_bytes) if remote.cache else None
    steps = predict_file(_loaded(remote), path, options, cache)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            result: FileResult = finished.value
            return result
