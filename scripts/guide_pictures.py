"""Make docs/live-*.jpg and docs/desktop-*.jpg: of what the scripted users of the tests saw, the pictures that the guides show.

xvfb-run -a -s "-screen 0 1600x1000x24" .venv/bin/python scripts/guide_pictures.py [live] [desktop]
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
QUALITY = 82  # text stays sharp, eight pictures stay under two megabytes
TOURS = {  # module, its parts, and those that end by their own kill -9
    "live": ("tests.plugins.tour", ("begin", "go-on"), ("begin",)),
    "desktop": ("tests.desktop.tour", ("newcomer", "curves", "job"), ("job",)),
}


def main() -> None:
    shown = "".join(path.read_text("utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    for name in sys.argv[1:] or TOURS:
        module, parts, killed = TOURS[name]
        with tempfile.TemporaryDirectory() as folder:
            for part in parts:
                subprocess.run([sys.executable, "-m", module, folder, part], cwd=ROOT, check=part not in killed)
            for path in sorted(Path(folder).glob("pictures/*.png")):
                target = ROOT / "docs" / f"{name}-{path.stem}.jpg"
                if target.name not in shown:
                    continue
                Image.open(path).convert("RGB").save(target, quality=QUALITY, optimize=True)
                print(target.relative_to(ROOT), target.stat().st_size)


if __name__ == "__main__":
    main()
