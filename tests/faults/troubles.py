"""Faults of the machine around the program: full and read-only disks, folders that go away, second writers, clocks, busy loops.

Each gives what was wrong, nothing if the program kept its promises. As root a small file system of its own stands for a full
or read-only disk; others get a limit of the size of files, and folders without permission.
"""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from PIL import Image

from tests.faults import kills, oracle
from tests.faults.kinds import environment
from tests.faults.makers import Kit, make_job
from tests.faults.oracle import Ended, Entry, command

_FUTURE = 400 * 86_400  # seconds
_LOOPS = 8
_BUSY_SECONDS = 25.0  # that a job is watched beside busy loops
_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


class Place:
    """A case: its folder, the kit, and the truth about the masks of its images."""

    def __init__(self, kit: Kit, case: Path, rng: random.Random, truth: dict[str, object]) -> None:
        self.kit, self.case, self.rng, self.truth = kit, case, rng, truth
        self.log = case.with_suffix(".log")
        self.wrong: list[str] = []

    @property
    def out(self) -> Path:
        """Folder of the masks."""
        return self.case / "out"

    def start(self, entry: Entry) -> int:
        """A run in a child."""
        return oracle.start(entry, self.log, **environment(self.case))

    def finish(self, pid: int, codes: tuple[int, ...] = (0, 1, 2)) -> Ended:
        """Its end, judged."""
        ended = oracle.finish(pid, self.log)
        self.wrong += oracle.problems(ended, codes=codes)
        return ended

    def run(self, entry: Entry, codes: tuple[int, ...] = (0, 1, 2)) -> Ended:
        """A run and its end, judged."""
        return self.finish(self.start(entry), codes)

    def predict(self) -> Entry:
        """All images of the case, with every output."""
        return kills.SCENARIOS["kill predict"].entry(self.kit, self.case)

    def wants(self, condition: object, words: str) -> None:
        """Note that something is wrong unless `condition` holds."""
        if not condition:
            self.wrong.append(words)

    def whole(self, *, all_of_them: bool = True) -> None:
        """What is there is what an undisturbed run makes; all of it, or a part."""
        found = kills.SCENARIOS["kill predict"].result(self.case)
        if all_of_them:
            self.wants(found == self.truth, f"{len(found)} of {len(self.truth)} outputs, or other ones")
        else:
            self.wrong += kills.SCENARIOS["kill predict"].half(self.case, self.truth)


@contextlib.contextmanager
def _mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def _limited(entry: Entry, what: int, value: int) -> Entry:
    """An entry under a limit of the system."""

    def call() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(what, (value, resource.getrlimit(what)[1]))
        entry()

    return call


def _others(place: Place) -> dict[str, tuple[Entry, Path]]:
    """Commands and the folder that each writes into."""
    kit, case = place.kit, place.case
    return {
        "predict": (place.predict(), place.out),
        "fit": (kills.SCENARIOS["kill fit"].entry(kit, case), place.out),
        "features": (kills.SCENARIOS["kill features"].entry(kit, case), case / "cache"),
        "pretrain": (kills.SCENARIOS["kill pretrain"].entry(kit, case), place.out),
    }


def full_disk(place: Place) -> str:
    """No room, at some moment: one line says it, nothing is half-written, and with more room the same command ends well."""
    name = place.rng.choice(("predict", "predict", "fit", "features", "pretrain"))
    entry, folder = _others(place)[name]
    size = place.rng.choice((4, 16, 40, 80, 150, 300, 600)) * 1024
    if not _ROOT:
        _make(name, place)
        place.run(_limited(entry, resource.RLIMIT_FSIZE, max(size // 40, 512)))
        place.whole(all_of_them=False)
        place.run(entry, codes=(0,))
        return f"{name}, files of {size // 40} bytes"
    with _mounted(folder, f"size={max(size, 8192) if name != 'pretrain' else size + 16384}"):
        _make(name, place)
        ended = place.run(entry)
        place.wants(ended.code == 0 or "full" in ended.stderr, f"not said to be full: {ended.stderr[-200:]}")
        if name == "predict":
            place.whole(all_of_them=False)
        subprocess.run(["mount", "-o", "remount,size=100m", str(folder)], check=True)
        place.run(entry, codes=(0,))
        if name == "predict":
            place.whole()
        place.wrong += kills.left_behind(place.case)
    return f"{name}, {size} bytes, exit code {ended.code}"


def _make(name: str, place: Place) -> None:
    if name == "pretrain":
        make_job(place.kit, place.out / "job", steps=6, every=2)


def read_only(place: Place) -> str:
    """A home and a cache that cannot be written stop nothing; an output folder that cannot be is said in one line."""
    what = place.rng.choice(("home", "home", "out"))
    name = place.rng.choice(("predict", "fit"))
    kit, case = place.kit, place.case
    if name == "predict":
        entry = command("predict", kit.classifier, case / "in", "--out", place.out, "--device", "cpu")
    else:
        entry = command("fit", kit.images, kit.labels, "--out", place.out / "x.mdm", "--backbone", kit.backbone, "--members", 1)
    with contextlib.ExitStack() as stack:
        for folder in ("home", "cache") if what == "home" else ("out",):
            stack.enter_context(_unwritable(case / folder))
        ended = place.run(entry, codes=(0,) if what == "home" else (1,))
    return f"{name}, {what} is read-only, exit code {ended.code}"


@contextlib.contextmanager
def _unwritable(folder: Path) -> Iterator[None]:
    if _ROOT:
        with _mounted(folder, "ro,size=16k"):
            yield
        return
    folder.mkdir()
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


def gone(place: Place) -> str:
    """A folder or a file is removed or renamed while it is used: one line, no half file, nothing at the old place."""
    what = place.rng.choice(("images", "image", "out", "rename out", "job", "project"))
    if what == "project":
        return _project_moved(place)
    _make("pretrain" if what == "job" else what, place)
    entry, _ = _others(place)["pretrain" if what == "job" else "predict"]
    pid = place.start(entry)
    time.sleep(place.rng.random() * 1.5)
    moved = place.case / "moved"
    with contextlib.suppress(OSError):
        if what == "images":
            (place.case / "in").rename(moved)
        elif what == "image":
            place.rng.choice(sorted((place.case / "in").iterdir())).unlink()
        elif what == "out":
            shutil.rmtree(place.out)
        else:
            (place.out / "job" if what == "job" else place.out).rename(moved)
    place.finish(pid)
    if what in ("images", "image"):
        place.whole(all_of_them=False)
    if what == "job":
        place.wants(not (place.out / "job").exists(), "the job's folder was made again at its old place")
    return f"{what} gone while in use"


def _project_moved(place: Place) -> str:
    """Autosave makes no new project where the old one was; what was painted before is in the moved one."""
    folder, moved, log = place.case / "project", place.case / "moved", place.case / "log"
    pid = place.start(lambda: kills.paint(folder, log))
    while not log.exists() or not log.stat().st_size:
        time.sleep(0.01)
    time.sleep(2.5 + place.rng.random())
    folder.rename(moved)
    renamed = time.monotonic()
    time.sleep(2.5)
    oracle.kill(pid)
    oracle.finish(pid, place.log)
    place.wants(not folder.exists(), "a project was made anew where the old one was")
    place.wrong += kills.strokes_lost(moved, log, renamed)
    return "project moved while it is painted in"


def two_writers(place: Place) -> str:
    """Two commands into one place: both end well, or one says that the other is there; the result is whole."""
    name = place.rng.choice(("predict", "fit", "features", "pretrain"))
    _make(name, place)
    entry, _ = _others(place)[name]
    other = place.case.with_suffix(".other.log")
    pids = [place.start(entry), oracle.start(entry, other, **environment(place.case))]
    ended = [place.finish(pids[0]), oracle.finish(pids[1], other)]
    place.wrong += oracle.problems(ended[1])
    place.wants(
        0 in (ended[0].code, ended[1].code), f"none of both ended well: {ended[0].stderr[-150:]} {ended[1].stderr[-150:]}"
    )
    place.run(entry, codes=(0,))
    if name == "predict":
        place.whole()
    place.wrong += kills.left_behind(place.case)
    return f"two of {name}, exit codes {ended[0].code} and {ended[1].code}"


def future_clock(place: Place) -> str:
    """Files of a time to come: what changed is done again, and jobs can be listed, cancelled and removed."""
    if place.rng.random() < 0.5:
        return _future_job(place)
    place.run(place.predict(), codes=(0,))
    image = place.case / "in" / "f0.png"
    shutil.copy(place.case / "in" / "f1.png", image)
    when = time.time() + place.rng.choice((-1, 1)) * _FUTURE
    os.utime(image, (when, when))
    place.run(place.predict(), codes=(0,))
    with Image.open(place.out / "f0.png") as a, Image.open(place.out / "f1.png") as b:
        place.wants(a.tobytes() == b.tobytes(), "an image that was replaced keeps its old mask")
    return "an image replaced by one of another time"


def _future_job(place: Place) -> str:
    folder = place.case / "home" / "jobs" / "mine-1"
    make_job(place.kit, folder)
    state = place.rng.choice(("running", "queued", "paused", "interrupted"))
    when = time.time() + _FUTURE
    facts = {
        "version": 1,
        "state": state,
        "heartbeat": when,
        "reported": when,
        "pid": 999999,
        "background": True,
        "restarts": 0,
    }
    (folder / "status.json").write_text(json.dumps(facts))
    ended = place.run(command("jobs", "list", "--json"), codes=(0,))
    place.wants("mine-1" in ended.stdout, "the job is not listed")
    place.run(command("jobs", "cancel", "mine"), codes=(0,))
    place.run(command("jobs", "remove", "mine"), codes=(0,))
    place.wants(not folder.exists(), "a job whose heartbeat lies in the future cannot be removed")
    return f"a {state} job of the future"


def few_files(place: Place) -> str:
    """Few file descriptors: it works, or one line says so; then the same command ends well."""
    name = place.rng.choice(("predict", "fit", "features", "pretrain"))
    _make(name, place)
    entry, _ = _others(place)[name]
    limit = place.rng.randrange(24, 64)
    ended = place.run(_limited(entry, resource.RLIMIT_NOFILE, limit))
    if name == "predict":
        place.whole(all_of_them=False)
    place.run(entry, codes=(0,))
    if name == "predict":
        place.whole()
    return f"{name} with {limit} files, exit code {ended.code}"


_NAMES = (
    b"caf\xe9.png", b"\xff\xfe.png", b"new\nline.png", "Zellkern \U0001f52c Ω.png".encode(), b"-rf.png", b"[red]x.png",
    b"a*b?.png", b"%s%n.png", b" space .png", b"x..png", b"a" * 240 + b".png", b"CON.png", b"tab\t.png", b"=1+1.png",
    b"\x1b[31m.png", b"$(id).png",
)  # fmt: skip


def odd_names(place: Place) -> str:
    """Names that are no UTF-8, or that shells, formats, markup and spreadsheets take for theirs."""
    folder, chosen = os.fsencode(place.case / "in"), place.rng.sample(_NAMES, 3)
    for name in chosen:
        shutil.copyfile(os.fsencode(place.kit.images / "f2.png"), os.path.join(folder, name))
    name = place.rng.choice(("predict", "predict", "features", "pretrain"))
    _make(name, place)
    entry, _ = _others(place)[name]
    if name == "pretrain":
        more = ("--steps", 1, "--batch", 1, "--crop", 32, "--recipe", "mae", "--device", "cpu")
        entry = command("pretrain", place.case / "in", "--out", place.case / "out" / "other", *more)
    ended = place.run(entry)
    if name == "predict":
        masks = [place.out / path.name for path in (place.case / "in").glob("f?.png")]
        place.wants(all(path.exists() for path in masks), f"a name stops the others: {ended.stderr[-200:]!r}")
        extra = [os.path.join(os.fsencode(place.out), each) for each in chosen]
        place.wants(ended.code or all(os.path.exists(each) for each in extra), "a mask is missing, and nothing is said")
    return f"{name} of {chosen}, exit code {ended.code}"


def busy(place: Place) -> str:
    """Eight busy loops: a job that lives is never said to be dead, and results are those of a quiet machine."""
    with _loops() as end_loops:
        if place.rng.random() < 0.5:
            place.run(place.predict(), codes=(0,))
            place.whole()
            return "predict beside eight busy loops"
        folder = place.case / "home" / "jobs" / "mine-1"
        make_job(place.kit, folder)
        place.run(lambda: _watch_job(folder, end_loops), codes=(0,))
        for process in psutil.process_iter(["cmdline"]):  # the worker has a session of its own
            if str(folder) in (process.info["cmdline"] or ()):
                process.kill()
        return "a job beside eight busy loops"


@contextlib.contextmanager
def _loops() -> Iterator[Callable[[], None]]:
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(_LOOPS)]

    def end() -> None:
        for each in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)

    try:
        yield end
    finally:
        end()
        for each in running:
            each.wait()


def _watch_job(folder: Path, end_loops: Callable[[], None]) -> None:
    """Start a worker as the window does and look at it as the window does, beside the loops and for a while after them."""
    from mdm_studio.io.job_folder import JobFolder
    from mdm_studio.services.jobs.board import JobBoard

    board, seen, begin = JobBoard(), [""], time.monotonic()
    view = board.start(JobFolder(folder))
    while view.state != "done" and time.monotonic() < begin + 2 * _BUSY_SECONDS:
        view = board.find(view.id)
        if seen[-1] != view.state:
            seen.append(view.state)
        if view.state in ("interrupted", "failed"):
            raise oracle.Wrong(f"a job that lives is said to be {view.state}: {seen} {view.message}")
        if time.monotonic() > begin + _BUSY_SECONDS:
            end_loops()
        time.sleep(0.05)


TROUBLES: dict[str, Callable[[Place], str]] = {
    each.__name__.replace("_", " "): each
    for each in (full_disk, read_only, gone, two_writers, future_clock, few_files, odd_names, busy)
}
SHARES = {
    "full disk": 4,
    "read only": 2,
    "gone": 4,
    "two writers": 4,
    "future clock": 3,
    "few files": 4,
    "odd names": 4,
    "busy": 2,
}


class Troublemaker:
    """Tries them, each in a folder of its own."""

    def __init__(self, kit: Kit, place: Path, killer: kills.Killer) -> None:
        self._kit, self._place, self._killer = kit, place, killer

    def try_one(self, kind: str, seed: int) -> kills.Tried:
        """One trouble."""
        begin, rng = time.monotonic(), random.Random(f"{kind} {seed}")
        case = self._place / f"{kind.replace(' ', '-')}-{seed}"
        (case / "tmp").mkdir(parents=True)
        kills.make_images(case)
        place = Place(self._kit, case, rng, self._killer.undisturbed("kill predict")[0])
        try:
            words = TROUBLES[kind](place)
        except Exception as error:  # noqa: BLE001 - a result that cannot be read is what is looked for
            words, place.wrong = "", [*place.wrong, f"cannot be read: {type(error).__name__}: {error}"]
        shutil.rmtree(case, ignore_errors=True)
        return kills.Tried(kind, seed, words, "; ".join(place.wrong)[:900], time.monotonic() - begin)
