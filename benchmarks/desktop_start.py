"""How long does the program take from the command to a window, and to a viewer? Beside an empty napari in the same run.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/desktop_start.py [--rounds 5] [--out start.json]

Both programs are started in turn, `--rounds` times after one round that is not counted (it fills the disk's cache). The clock
starts before the process does. Of ours: when the start page has been painted and takes clicks, and when the viewer is there, so
that a project opens at once; also the longest time in between that the window stood still. Of napari: when its empty window is
shown and its event loop runs. Settings, data and cache are new folders.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAPARI = """
import json, sys, time
import napari
from qtpy.QtCore import QTimer

viewer = napari.Viewer()

def usable():
    with open(sys.argv[1], "w") as file:
        json.dump({"usable": time.time()}, file)
    viewer.close()

QTimer.singleShot(0, usable)
napari.run()
"""


def start(command: list[str], folder: Path) -> dict[str, float]:
    """Seconds since the start of the process, by what happened."""
    times = folder / "times.json"
    environment = {
        **os.environ,
        "MDM_STUDIO_START_TIMES": str(times),
        "MDM_STUDIO_DATA": str(folder / "data"),
        "MDM_STUDIO_CACHE": str(folder / "cache"),
        "NAPARI_CONFIG": str(folder / "napari.yaml"),
    }
    before = time.time()
    subprocess.run([*command, str(times)] if "-c" in command else command, env=environment, check=True, capture_output=True)
    read = json.loads(times.read_text())
    times.unlink()
    return {name: value if name == "longest_stall" else value - before for name, value in read.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    commands = {"MDM Studio": [sys.executable, "-m", "mdm_studio"], "napari": [sys.executable, "-c", NAPARI]}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds + 1):
            for name, command in commands.items():
                times = start(command, Path(folder))
                print(f"{'warm-up' if number == 0 else number} {name}: {times}", flush=True)
                if number:
                    rows[name].append(times)
    ours, theirs = rows["MDM Studio"], statistics.median(row["usable"] for row in rows["napari"])
    figures = {name: statistics.median(row[name] for row in ours) for name in ours[0]}
    figures["napari"] = theirs
    figures["painted / napari"], figures["usable / napari"] = figures["painted"] / theirs, figures["usable"] / theirs
    for name, value in figures.items():
        print(f"{name:20} {value:6.2f}")
    if options.out:
        options.out.write_text(json.dumps({"median": figures, "rounds": rows}, indent=2))


if __name__ == "__main__":
    main()
