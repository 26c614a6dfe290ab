"""The same export from workers of real dask clusters on this machine: scheduler and workers are processes of their own."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import warnings

import psutil
import pytest

from mdm_studio.engine.objects import ObjectOptions
from mdm_studio.errors import ClassifierError, OutputError, UsageError
from mdm_studio.services.cluster import _check_workers, _client
from mdm_studio.services.export import export
from mdm_studio.services.export_request import ExportRequest, FileResult, PredictOptions, TileProgress, TlsFiles

QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
OPTIONS = {"probabilities": True, "objects": ObjectOptions("watershed"), "tables": ("csv",)}
WITHOUT_US = "import sys; sys.modules['mdm_studio'] = None; from distributed.cli.{0} import main; main()"


# somebody without our certificate: what each port answers to each way of asking
INTRUDER = """
import asyncio, json, sys, urllib.request
from distributed import Security
from distributed.comm import connect

async def ask(way, port, security):
    try:
        comm = await connect(f"{way}://127.0.0.1:{port}", timeout=1, **security.get_connection_args("client"))
        await asyncio.wait_for(comm.write({"op": "identity", "reply": True}), 1)
        return str(await asyncio.wait_for(comm.read(), 1))
    except (OSError, TypeError, asyncio.TimeoutError):
        return "refused"

def fetch(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).read().decode()
    except OSError:
        return "refused"

own = Security.temporary()
for port in sys.argv[1:]:
    for way, security in (("tcp", Security()), ("tls", own), ("tls", Security(tls_ca_file=own.tls_ca_file))):
        print(port, way, asyncio.run(ask(way, port, security)))
    print(port, "http", fetch(port))
"""


class Cluster:
    """A scheduler on a free port, and workers that can be added and killed."""

    def __init__(self, stack, options=()):
        self._stack, self._options = stack, options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"{'tls' if options else 'tcp'}://127.0.0.1:{port}"
        code = WITHOUT_US.format("dask_scheduler")  # it needs nothing of ours
        self.scheduler = self._start(["-c", code, "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", *options])

    def worker(self, *, with_us=True):
        main = ["-m", "distributed.cli.dask_worker"] if with_us else ["-c", WITHOUT_US.format("dask_worker")]
        return self._start([*main, self.address, "--nthreads", "1", "--no-dashboard", "--no-nanny", *self._options])

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
            told.append((topic, os.fsdecode(message["image"]), message["done"]))
            sign.touch()

    monkeypatch.setattr("distributed.get_worker", Worker)
    (tmp_path / "m").mkdir()
    order = request(export_set, tmp_path / "m").to_json()
    digest = classifier_digest(*read_classifier(export_set.classifier))
    image = str(export_set.images[0])
    found = predict_one(order, digest, image, "topic", str(sign))
    assert (found["state"], [each[:2] for each in told]) == ("stopped", [("topic", image)])
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


def test_nobody_else_can_use_the_processes_of_this_machine(export_set, tmp_path, monkeypatch):
    """No port of ours runs code for, or tells anything to, whoever lacks the certificate; and nobody else can read that."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with _client(request(export_set, tmp_path / "w", workers=2)) as client:
        _check_workers(client, request(export_set, tmp_path, workers=2))
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        connections = [each for process in family for each in process.net_connections("inet")]
        listening = [each.laddr for each in connections if each.status == psutil.CONN_LISTEN]
        assert {address.ip for address in listening} == {"127.0.0.1"}
        ports = sorted({str(address.port) for address in listening})
        assert len(ports) == 5  # the scheduler, and two workers with a nanny each: no web server
        command = [sys.executable, "-c", INTRUDER, *ports]
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        found = outcome.stdout.splitlines()
        assert len(found) == 4 * len(ports), outcome.stderr
        assert not [line for line in found if not line.endswith(" refused")]
        assert not any("PRIVATE KEY" in text for process in family for text in _seen_by_others(process))
        for path in (tmp_path / "temporary").rglob("*"):
            assert path.is_dir() or b"PRIVATE KEY" not in path.read_bytes()
        assert not [path for path in (tmp_path / "temporary").iterdir() if path.stat().st_mode & 0o077]
        assert client.submit(os.getpid).result() in {process.pid for process in family[1:]}
    assert not [path for path in (tmp_path / "temporary").iterdir() if path.name.startswith("mdm-studio-")]


def _seen_by_others(process):
    with contextlib.suppress(psutil.Error):  # it may have ended
        yield from process.cmdline()
        yield from process.environ().values()


def certificates(folder):
    """Files of an authority, a certificate and a key, as an administrator of a cluster hands them out."""
    from distributed import Security

    folder.mkdir()
    made = Security.temporary()
    files = TlsFiles(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    for path, text in zip(vars(files).values(), (made.tls_ca_file, made.tls_client_cert, made.tls_client_key), strict=True):
        path.write_text(text)
    return files


def test_a_scheduler_with_certificates(export_set, tmp_path, monkeypatch):
    """Ours open it, given as options or by dask's configuration; others do not, and none is said in words."""
    import dask

    tls = certificates(tmp_path / "right")
    options = ["--tls-ca-file", str(tls.ca_file), "--tls-cert", str(tls.cert), "--tls-key", str(tls.key)]
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = Cluster(stack, options)
        cluster.worker()
        wanted = request(export_set, tmp_path / "m", scheduler=cluster.address, tls=tls)
        assert states(export(wanted)) == ["done"] * 3
        without = request(export_set, tmp_path / "n", scheduler=cluster.address)
        with pytest.raises(UsageError, match="asks for certificates: pass --tls-ca-file"), _client(without):
            pass
        keys = {"ca-file": str(tls.ca_file), "client.cert": str(tls.cert), "client.key": str(tls.key)}
        with dask.config.set({f"distributed.comm.tls.{name}": path for name, path in keys.items()}), _client(without) as client:
            assert client.status == "running"
        monkeypatch.setattr("mdm_studio.services.cluster._PATIENCE", "2s")
        others = request(export_set, tmp_path, scheduler=cluster.address, tls=certificates(tmp_path / "wrong"))
        with pytest.raises(UsageError, match="refuses our certificate"), _client(others):
            pass
        tls.key.write_text("no key")
        with pytest.raises(UsageError, match="cannot be read"), _client(wanted):
            pass


def test_certificates_are_for_tls_and_stay_with_a_job(export_set, tmp_path):
    tls = TlsFiles(tmp_path / "ca.pem", tmp_path / "cert.pem")
    with pytest.raises(UsageError, match="tls://HOST:PORT"):
        request(export_set, tmp_path, scheduler="tcp://127.0.0.1:1", tls=tls)
    made = request(export_set, tmp_path, scheduler="tls://127.0.0.1:1", tls=tls)
    assert ExportRequest.from_json(json.loads(json.dumps(made.to_json()))).tls == tls
    facts = request(export_set, tmp_path).to_json()
    del facts["tls"]  # of an older version
    assert ExportRequest.from_json(facts).tls == TlsFiles()
