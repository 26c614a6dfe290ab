"""Prediction spread over the workers of a ``dask.distributed`` cluster, one image a task.

The cluster may be one of this machine, made for the run, or one that stands elsewhere. Its scheduler needs no MDM Studio: tasks
and results are plain values, and the functions that call us travel whole. Its workers do, and they see the files under the same
paths. The image of a worker that dies goes back to the queue; what it left unfinished is hidden, and swept in the end.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import queue
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mdm_studio
from mdm_studio.config import CACHE_BYTES
from mdm_studio.errors import OutputError, UsageError
from mdm_studio.services.export_request import ExportRequest, FileResult, TileProgress

if TYPE_CHECKING:
    from mdm_studio.services.classifier import Classifier

_PATIENCE = "10s"  # for a scheduler to answer, and for its first worker
_START = "300s"  # for processes of this machine, which come, however busy it is
_TELL_SECONDS = 0.5  # between two words of a worker on its image
_LOOK_SECONDS = 0.25  # between two looks at `stop`
_GIVE_UP_SECONDS = 120.0  # for workers to end the tile that they are at


def predict_on_cluster(
    request: ExportRequest, digest: str, paths: Sequence[Path], *, stop: Callable[[], bool]
) -> Generator[TileProgress | FileResult, None, None]:
    """Predict `paths` on the cluster that a request names; yields progress and results as they come.

    Parameters
    ----------
    request : ExportRequest
        With absolute paths; its `workers` or its `scheduler` says where.
    digest : str
        Of the classifier, see `mdm_studio.io.classifier_file.classifier_digest`: workers refuse any other.
    paths : sequence of Path
        The images that are to be predicted, whatever is there.
    stop : callable
        Asked several times a second; then no image is begun any more, and those on the way are given up after a tile.

    Raises
    ------
    UsageError
        If ``distributed`` is not installed, no scheduler answers, or its workers cannot do it.
    OutputError
        If the scheduler is lost on the way.
    """
    with _client(request) as client:
        _check_workers(client, request)
        with contextlib.closing(_Run(client, request, digest, paths, stop).events()) as events:
            yield from events


@contextlib.contextmanager
def _client(request: ExportRequest) -> Iterator[Any]:
    """A client of the cluster that a request names, or of one of this machine that is there as long as the client."""
    try:
        from distributed import Client
    except ImportError as error:
        option = "--scheduler" if request.scheduler else "--workers"
        raise UsageError(f"{option} needs the package distributed; install mdm-studio[cluster]") from error
    gc.collect()  # a client that failed to connect and is collected while another one starts would wait for that one forever
    for name in ("distributed", "tornado"):  # what goes wrong is said by us, once
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of workers that are not of our version of Python
        address: Any = request.scheduler
        security = _security(request) if address else None
        if not address:
            address, security = stack.enter_context(_local_cluster(request.workers))
        try:
            patience = _PATIENCE if request.scheduler else _START
            # not the default of this process: whatever else it reads through dask stays here
            client = stack.enter_context(Client(address, security=security, timeout=patience, set_as_default=False))  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            refused = ", or it refuses our certificate" if request.encrypted else ""
            raise UsageError(
                f"no dask scheduler answers at {address}{refused}; start one with `dask scheduler` and pass the "
                "address that it prints"
            ) from error
        yield client


def _local_cluster(workers: int) -> contextlib.AbstractContextManager[Any]:
    try:
        import cryptography  # noqa: F401

        from mdm_studio.services.local_cluster import local_cluster
    except ImportError as error:
        raise UsageError(
            "--workers needs the package cryptography, so that nobody else can use its processes; install mdm-studio[cluster]"
        ) from error
    return local_cluster(workers)


def _security(request: ExportRequest) -> Any:
    """Certificates for a scheduler that stands elsewhere: those of the request, for the rest those of dask's configuration."""
    from distributed import Security

    if not request.encrypted:
        return None
    security: Any = Security(**request.tls.security())  # type: ignore[no-untyped-call]
    if not (security.tls_ca_file and security.tls_client_cert):
        raise UsageError(
            f"{request.scheduler} asks for certificates: pass --tls-ca-file, --tls-cert and --tls-key, the files that the "
            "workers of this cluster got, or set distributed.comm.tls in dask's configuration"
        )
    try:
        security.get_connection_args("client")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise UsageError(
            f"the certificates for {request.scheduler} cannot be read ({error}): pass PEM files with --tls-ca-file, "
            "--tls-cert and --tls-key"
        ) from error
    return security


def _check_workers(client: Any, request: ExportRequest) -> None:
    """Complain about a cluster without workers, or with some that lack the program or the files."""
    where = request.scheduler or "this machine"
    try:
        client.wait_for_workers(1, timeout=_PATIENCE if request.scheduler else _START)
    except TimeoutError as error:
        raise UsageError(
            f"the scheduler at {where} has no workers; start some with `dask worker {where} --nthreads 1`, where MDM Studio is "
            "installed and the files are under the same paths"
        ) from error

    def look(paths: Sequence[str]) -> dict[str, Any]:  # travels whole: a worker without MDM Studio can run it
        from pathlib import Path

        try:
            import mdm_studio
        except ImportError:
            return {"version": "", "missing": []}
        return {"version": mdm_studio.__version__, "missing": [path for path in paths if not Path(path).exists()]}

    wanted = [str(request.classifier), str(request.options.out), *(str(path.parent) for path in request.images[:1])]
    for worker, found in client.run(look, wanted).items():
        if not found["version"]:
            raise UsageError(
                f"the worker {worker} lacks MDM Studio {mdm_studio.__version__}: install it in the environment that its "
                "`dask worker` is started from"
            )
        if found["version"] != mdm_studio.__version__:
            raise UsageError(
                f"the worker {worker} has MDM Studio {found['version']} and {mdm_studio.__version__} is running here: their "
                "masks might differ; install the same version"
            )
        if found["missing"]:
            raise UsageError(
                f"the worker {worker} does not see {found['missing'][0]}: give it the folder under the same path (a network "
                "drive), or run without --scheduler"
            )


class _Run:
    """The images of one export on a cluster."""

    def __init__(
        self, client: Any, request: ExportRequest, digest: str, paths: Sequence[Path], stop: Callable[[], bool]
    ) -> None:
        self._client, self._stop, self._elsewhere = client, stop, bool(request.scheduler)
        self._topic = f"mdm-studio-{uuid.uuid4().hex[:8]}"
        self._sign = request.options.out / f".stop.{uuid.uuid4().hex[:8]}.part"  # workers end when they see it
        self._came: queue.SimpleQueue[Any] = queue.SimpleQueue()
        order = request.to_json() | {"images": [], "tls": {}}

        def task(image: str) -> dict[str, Any]:  # travels whole: the scheduler need not know us
            from mdm_studio.services.cluster import predict_one

            return predict_one(order, digest, image, topic, sign)

        topic, sign = self._topic, str(self._sign)
        client.subscribe_topic(topic, lambda event: self._came.put(event[1]))
        self._left = {}
        for path in paths:
            future = client.submit(task, str(path), pure=False)
            self._left[future.key] = (path, future)
        for _, future in list(self._left.values()):
            future.add_done_callback(self._came.put)

    def events(self) -> Generator[TileProgress | FileResult, None, None]:
        stopped_at = 0.0
        try:
            while self._left:
                if not stopped_at and self._stop():
                    stopped_at = time.monotonic()
                    self._sign.touch()
                if stopped_at and time.monotonic() - stopped_at > _GIVE_UP_SECONDS:
                    break
                with contextlib.suppress(queue.Empty):
                    event = self._event(self._came.get(timeout=_LOOK_SECONDS), stopping=bool(stopped_at))
                    if event is not None:
                        yield event
            for path, _ in self._left.values():
                yield FileResult(path, "stopped", message="stopped on the way")
        finally:
            self._end()

    def _event(self, what: Any, *, stopping: bool) -> TileProgress | FileResult | None:
        if isinstance(what, Mapping):
            return TileProgress(Path(what["image"]), what["done"], what["total"], what["pixels"], what["note"])
        path, future = self._left.pop(what.key, (None, what))
        if path is None:
            return None
        if future.status == "finished":
            return _result(future.result())
        if future.status == "error":
            return FileResult(path, "failed", message=_words(path, future.exception()))
        if stopping:
            return FileResult(path, "stopped", message="stopped on the way")
        raise OutputError(  # cancelled, and not by us
            "the scheduler has gone away, or was restarted; start it again and repeat the command: what is done is kept"
        )

    def _end(self) -> None:
        """Leave nothing running that still writes: workers give up after the tile they are at; our own are ended at once."""
        if self._left and self._elsewhere and self._client.status == "running":
            with contextlib.suppress(OSError):
                self._sign.touch()
            patience = time.monotonic() + _GIVE_UP_SECONDS / 10
            futures = [future for _, future in self._left.values()]
            while time.monotonic() < patience and not all(future.done() for future in futures):
                time.sleep(_LOOK_SECONDS / 5)
        with contextlib.suppress(OSError):
            self._sign.unlink(missing_ok=True)


def _result(facts: Mapping[str, Any]) -> FileResult:
    return FileResult(
        Path(facts["image"]),
        facts["state"],
        {kind: Path(path) for kind, path in facts["outputs"].items()},
        facts["seconds"],
        dict(facts["pixels"]),
        facts["message"],
        facts["objects"],
        facts["differs"],
        tuple(facts["source"]),
        {kind: tuple(each) for kind, each in facts["written"].items()},
        left_out=tuple(facts["left_out"]),
        notes=tuple(facts["notes"]),
    )


def _words(path: Path, error: BaseException) -> str:
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return f"{path}: its worker died again and again, out of memory perhaps: predict it alone, or with fewer workers"
    if isinstance(error, ModuleNotFoundError):
        return f"{path}: a worker lacks a package ({error}): install MDM Studio in the environment of every worker"
    return f"{path}: its worker met {type(error).__name__}: {error}"


# --------------------------------------------------------------------------------------------------------- on a worker


@lru_cache(maxsize=1)
def _loaded(path: Path, backbone: str | None, device: str, digest: str) -> Classifier:
    from mdm_studio.engine.devices import keep_freed_memory
    from mdm_studio.services.classifier import load_classifier

    keep_freed_memory()  # dask has its workers hand memory back at once, which took half of their time
    return load_classifier(path, backbone=backbone, device=device, digest=digest)


def predict_one(order: Mapping[str, Any], digest: str, image: str, topic: str, sign: str) -> dict[str, Any]:
    """Predict an image on a worker; what became of it as plain values.

    Parameters
    ----------
    order : mapping
        `ExportRequest.to_json`, without the images.
    digest, image : str
        Of the classifier, and the file.
    topic : str
        Under which progress is told.
    sign : str
        A file: once it is there, the image is given up.
    """
    if Path(sign).exists():
        return _facts(FileResult(Path(image), "stopped", message="stopped before it was begun"))
    from distributed import get_worker

    from mdm_studio.io.feature_cache import FeatureCache
    from mdm_studio.io.remarks import heard
    from mdm_studio.services.batch import predict_file

    request = ExportRequest.from_json(order)
    classifier = _loaded(request.classifier, request.backbone, request.device, digest)
    cache = FeatureCache(request.cache, max_bytes=CACHE_BYTES, optional=True) if request.cache else None
    steps = predict_file(classifier, Path(image), request.options, cache)
    worker, told = get_worker(), 0.0
    while True:
        try:
            with heard(lambda path, words: None):  # it is told where the results come together
                event = next(steps)
        except StopIteration as end:
            return _facts(end.value)
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            worker.log_event(topic, {**vars(event), "image": image})
            if Path(sign).exists():
                steps.close()
                return _facts(FileResult(Path(image), "stopped", message="stopped on the way"))


def _facts(result: FileResult) -> dict[str, Any]:
    outputs = {kind: str(path) for kind, path in result.outputs.items()}
    return {**vars(result), "image": str(result.image), "outputs": outputs}
