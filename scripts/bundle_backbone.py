"""Turn the result of a pretraining job into the bundled backbone: what it reads by default, summary and model card.

    python scripts/bundle_backbone.py JOB resources/backbones/mdm-nuclei --blocks 4-7 --timesteps 50 --scales 1 --filters \
        --summary "nuclei in fluorescence and stained tissue" --card benchmarks/mdm-nuclei.md

JOB is the folder of `mdm-studio pretrain --out JOB`. The card's text is appended to what the job wrote about itself.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from mdm_studio.cli.common import parse_numbers
from mdm_studio.io.backbone_files import README, read_card, read_weights, write_backbone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--blocks", required=True)
    parser.add_argument("--timesteps", required=True)
    parser.add_argument("--scales", default="1")
    parser.add_argument("--filters", action="store_true", help="read the filter bank beside the blocks")
    parser.add_argument("--summary", required=True)
    parser.add_argument("--card", type=Path, required=True)
    args = parser.parse_args()
    source = args.job / "backbone"
    card = read_card(source) | {
        "name": args.target.name,
        "blocks": parse_numbers(args.blocks, "--blocks"),
        "timesteps": parse_numbers(args.timesteps, "--timesteps"),
        "scales": parse_numbers(args.scales, "--scales"),
        "filters": args.filters,
        "summary": args.summary,
    }
    readme = (source / README).read_text().rstrip() + "\n\n" + args.card.read_text()
    write_backbone(args.target, read_weights(source), card, readme)
    shutil.copyfile(source / "loss.png", args.target / "loss.png")


if __name__ == "__main__":
    main()
