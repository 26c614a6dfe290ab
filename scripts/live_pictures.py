"""Make docs/live-*.jpg: what the scripted user of tests/plugins/tour.py saw at each step.

xvfb-run -a -s "-screen 0 1600x1000x24" .venv/bin/python scripts/live_pictures.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
QUALITY = 82  # text stays sharp, eight pictures stay under two megabytes


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for part in ("begin", "go-on"):  # the first ends by its own kill -9
            subprocess.run([sys.executable, "-m", "tests.plugins.tour", folder, part], cwd=ROOT, check=part == "go-on")
        for path in sorted(Path(folder).glob("pictures/*.png")):
            target = ROOT / "docs" / f"live-{path.stem}.jpg"
            Image.open(path).convert("RGB").save(target, quality=QUALITY, optimize=True)
            print(target.relative_to(ROOT), target.stat().st_size)


if __name__ == "__main__":
    main()
