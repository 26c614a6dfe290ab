#!/bin/sh
# All that the README says about label efficiency: own backbones for glas and monuseg, then every data set.
# usage: sh benchmarks/label_efficiency.sh DATA RESULTS
# On one core of a two-core machine about 8 hours; stopped and started again it goes on where it was.
set -eu
data=$1
out=$2
forest="random forest, classical filters"
own() {
    [ -d "$out/$1/backbone" ] || mdm-studio pretrain "$data/$1/images" "$data/$1/unlabelled" --out "$out/$1" --name "$@"
}
score() {
    python "$(dirname "$0")/label_efficiency.py" "$data" --out "$out" --tests 40 --base "$forest" "$@"
}
common() {
    set_=$1
    shift
    score --sets "$set_" --labels 1x1 2x2 5x2 5x8 "$@" --methods "forest:raw as $forest" "forest:filters as random forest, our filters" \
        "mlp:filters as MLPs, our filters" "mlp:untrained as MLPs, random weights" "mlp:mdm-nuclei as MLPs, bundled backbone" \
        "mlp:mdm-nuclei+filters as MLPs, bundled backbone and filters" \
        "mlp(smooth=8;invert=None):mdm-nuclei+filters as the default"
}
common dsb2018 5xdense
common vnc_em
common camvid
common glas 8xdense
common monuseg 3xdense
own glas --scales 4 --steps 979
own monuseg --steps 473
score --sets glas --labels 1x1 2x2 5x2 5x8 8xdense --methods "mlp(smooth=8):$out/glas#2-7@4+filters as the default, own backbone"
score --sets monuseg --labels 1x1 2x2 5x2 5x8 3xdense --methods "mlp(smooth=8):$out/monuseg#7+filters as the default, own backbone"
score --report
