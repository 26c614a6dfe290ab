"""Spoil thousands of files, kill hundreds of runs, take disks and folders away, and say what the program made of it.

Bounded in time; every fault has a seed, and ``--repeat KIND:SEED`` shows it alone. Linux; as root it mounts small file systems
for full and read-only disks.

    python scripts/fault_campaign.py --minutes 40 --json faults.json
"""

import argparse
import collections
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from tests.faults import fuzz, kills, oracle, troubles  # noqa: E402 - of this checkout
from tests.faults.kinds import SHARES as INPUTS  # noqa: E402
from tests.faults.makers import Kit  # noqa: E402

Counted = tuple[fuzz.Tried, int]  # a fault, and as how many it counts
_KINDS = (*INPUTS, *kills.SHARES, *troubles.SHARES)


def main() -> int:
    """Run the campaign; 0 if nothing failed."""
    asked = _arguments()
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        begin = time.monotonic()
        kit = fuzz.prepare(root)
        if asked.repeat:
            return _repeat(asked.repeat, kit, root)
        until = begin + 60 * asked.minutes
        lanes = [_Lane(root / f"lane{number}", run, kit, asked, until) for number, run in enumerate((_inputs, _kills))]
        try:
            rows = list(_followed(lanes))
        finally:
            for lane in lanes:
                lane.end()
    return _report(asked, rows, begin, until)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="nothing is begun any more after this")
    parser.add_argument("--seed", type=int, default=0, help="another campaign for another number")
    parser.add_argument("--inputs", type=int, default=2100, help="spoilt inputs, over all kinds")
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs, over all kinds")
    parser.add_argument("--troubles", type=int, default=100, help="other faults, over all kinds")
    parser.add_argument("--kinds", default="", help=f"only these, with commas between: {', '.join(_KINDS)}")
    parser.add_argument("--json", type=Path, help="write all figures and failures there")
    parser.add_argument("--repeat", default="", metavar="KIND:SEED", help="one fault, alone")
    asked = parser.parse_args()
    asked.chosen = [each.strip() for each in asked.kinds.split(",") if each.strip()] or list(_KINDS)
    if unknown := set(asked.chosen) - set(_KINDS):
        parser.error(f"unknown kinds: {', '.join(sorted(unknown))}")
    return asked


# ------------------------------------------------------------------------------------------------ two lanes, side by side


class _Lane:
    """A child that tries one fault after another and writes a line for each."""

    def __init__(
        self, place: Path, run: Callable[..., Iterator[Counted]], kit: Kit, asked: argparse.Namespace, until: float
    ) -> None:
        place.mkdir()
        self.told, self._read = place / "told.jsonl", 0
        self.told.touch()
        sys.stdout.flush()
        self.living = True
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                with self.told.open("a") as file:
                    for tried, count in run(kit, place, asked, until):
                        file.write(json.dumps({**vars(tried), "count": count}) + "\n")
                        file.flush()
                code = 0
            finally:
                os._exit(code)

    def end(self) -> None:
        """End it if it has not ended."""
        if self.living:
            os.kill(self.pid, signal.SIGKILL)

    def news(self) -> list[dict[str, object]]:
        """What was tried since the last look."""
        with self.told.open() as file:
            file.seek(self._read)
            lines = file.readlines()
            if lines and not lines[-1].endswith("\n"):
                lines.pop()
        self._read += sum(len(line.encode()) for line in lines)
        return [json.loads(line) for line in lines]


def _followed(lanes: list[_Lane]) -> Iterator[dict[str, object]]:
    living = list(lanes)
    while living:
        time.sleep(0.5)
        for lane in list(living):
            done, status = os.waitpid(lane.pid, os.WNOHANG)
            yield from map(_shown, lane.news())
            if done:
                living.remove(lane)
                lane.living = False
                if status:
                    yield _shown(vars(fuzz.Tried("campaign", 0, "", f"a lane ended with {status}", 0.0)) | {"count": 0})


def _shown(row: dict[str, object]) -> dict[str, object]:
    if row["problem"]:
        print(f"{row['kind']}:{row['seed']} {row['words']}\n    {row['problem']}", flush=True)
    return row


def _inputs(kit: Kit, place: Path, asked: argparse.Namespace, until: float) -> Iterator[Counted]:
    wanted = _shared(asked.inputs, {kind: share for kind, share in INPUTS.items() if kind in asked.chosen})
    for tried in fuzz.fuzz(wanted, asked.seed, kit, place, until):
        yield tried, 1


def _kills(kit: Kit, place: Path, asked: argparse.Namespace, until: float) -> Iterator[Counted]:
    """Kills and troubles in turns, so that a short campaign has some of each."""
    killer = kills.Killer(kit, place)
    maker = troubles.Troublemaker(kit, place, killer)
    left = _shared(asked.kills, {kind: share for kind, share in kills.SHARES.items() if kind in asked.chosen})
    left |= _shared(asked.troubles, {kind: share for kind, share in troubles.SHARES.items() if kind in asked.chosen})
    number = asked.seed * 1_000_000
    while any(count > 0 for count in left.values()) and time.monotonic() < until:
        for kind in left:
            if left[kind] <= 0 or time.monotonic() > until:
                continue
            tried, count = killer.try_one(kind, number) if kind in kills.SHARES else (maker.try_one(kind, number), 1)
            left[kind] -= count
            yield tried, count
        number += 1


def _shared(count: int, shares: dict[str, int]) -> dict[str, int]:
    whole = sum(shares.values())
    return {kind: -(-count * share // whole) for kind, share in shares.items()}


# -------------------------------------------------------------------------------------------------------------- words


def _report(asked: argparse.Namespace, rows: list[dict[str, object]], begin: float, until: float) -> int:
    minutes, stopped = (time.monotonic() - begin) / 60, time.monotonic() >= until
    tried, failed = collections.Counter(), collections.Counter()
    for row in rows:
        tried[row["kind"]] += row["count"]
        failed[row["kind"]] += row["count"] if row["problem"] else 0
    failures = [row for row in rows if row["problem"]]
    print(f"\n{'kind':16}{'tried':>8}{'survived':>10}{'failed':>8}")
    for kind in tried:
        print(f"{kind:16}{tried[kind]:8}{tried[kind] - failed[kind]:10}{failed[kind]:8}")
    survived = tried.total() - failed.total()
    print(f"{'all':16}{tried.total():8}{survived:10}{failed.total():8}   {minutes:.1f} min, seed {asked.seed}")
    if stopped:
        print("stopped by --minutes before all was tried")
    if asked.json:
        about = {
            "seed": asked.seed,
            "minutes": minutes,
            "stopped": stopped,
            "system": platform.platform(),
            "processors": os.cpu_count(),
        }
        table = {kind: {"tried": tried[kind], "failed": failed[kind]} for kind in tried}
        asked.json.write_text(json.dumps(about | {"kinds": table, "failures": failures}, indent=2) + "\n")
    return 1 if failures else 0


def _repeat(text: str, kit: Kit, root: Path) -> int:
    """One fault alone; what the program printed goes to the terminal."""
    kind, _, seed = text.partition(":")
    finish = oracle.finish

    def loud(*arguments: object) -> oracle.Ended:
        ended = finish(*arguments)
        print(f"-- exit code {ended.code}, {ended.seconds:.1f} s, {ended.memory >> 20} MB", flush=True)
        print(ended.stdout + ended.stderr, flush=True)
        return ended

    oracle.finish = loud
    killer = kills.Killer(kit, root)
    if kind in INPUTS:
        tried = fuzz.try_one(kind, int(seed), kit, root)
    elif kind in kills.SHARES:
        tried, _ = killer.try_one(kind, int(seed))
    else:
        tried = troubles.Troublemaker(kit, root, killer).try_one(kind, int(seed))
    print(f"{tried.kind}:{tried.seed} {tried.words}\n    {tried.problem or 'survived'}")
    return 1 if tried.problem else 0


if __name__ == "__main__":
    sys.exit(main())
