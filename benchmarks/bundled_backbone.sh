#!/bin/sh
# The exact commands behind the bundled backbone (resources/backbones/mdm-nuclei).
# usage: sh benchmarks/bundled_backbone.sh DATA/dsb2018 JOB
# It was made on one core of a two-core machine (AMD EPYC with AVX-512 bfloat16), the other core being busy: OMP_NUM_THREADS=1.
set -eu
data=$1
job=$2
mdm-studio pretrain "$data/images" --out "$job" --name mdm-nuclei --size small --minutes 95 --batch 16 --checkpoint-every 200
# which blocks and timesteps: seeds 100.. are not those of the reported figures
python benchmarks/label_efficiency.py "$(dirname "$data")" --out "$job/sweep" --sets dsb2018 --labels 5x8 --tests 40 \
    --seeds 100 101 102 --each-block "$job/backbone" --timesteps 50,250
python scripts/bundle_backbone.py "$job" resources/backbones/mdm-nuclei --blocks 7 --timesteps 50 --filters \
    --summary "nuclei: fluorescence and stained tissue" --card benchmarks/mdm-nuclei.md
python benchmarks/label_efficiency.py "$(dirname "$data")" --out "$job/figures" --sets dsb2018
