#!/bin/sh
# All that the README says about label efficiency: own backbones for glas and monuseg, then every data set.
# usage: sh benchmarks/label_efficiency.sh DATA RESULTS
# On one core of a two-core machine about 5 hours; stopped and started again it goes on where it was.
set -eu
data=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
forest="random forest, classical filters"

own() { # NAME OPTIONS...: a backbone of the data set's own images, labelled or not
    name=$1
    shift
    mkdir -p "$out/$name-images"
    for folder in images unlabelled; do
        for file in "$data/$name/$folder"/*; do ln -sf "$file" "$out/$name-images/$folder-${file##*/}"; done
    done
    [ -d "$out/$name/backbone" ] || mdm-studio pretrain "$out/$name-images" --out "$out/$name" "$@"
}
score() {
    python "$(dirname "$0")/label_efficiency.py" "$data" --out "$out" --base "$forest" "$@"
}
points() { # NAME OPTIONS...: methods that are judged on single pixels, which is quick
    set_=$1
    shift
    score --sets "$set_" "$@" --methods "forest:raw as $forest" "forest:filters as random forest, our filters" \
        "mlp:filters as MLPs, our filters" "mlp:untrained as MLPs, random weights" "mlp:mdm-nuclei as MLPs, bundled backbone" \
        "mlp:mdm-nuclei+filters as MLPs, bundled backbone and filters"
}
default="mlp(smooth=8;invert=None):mdm-nuclei+filters as the default"
without="mlp(smooth=8;invert=None):filters as the default without the backbone"

points dsb2018 --tests 40 --labels 1x1 2x2 5x2 5x8 5xdense
score --sets dsb2018 --tests 40 --labels 1x1 2x2 5x2 5x8 5xdense --methods "$default"
score --sets dsb2018 --tests 40 --labels 2x2 5x8 --methods "$without"
points glas --tests 20 --labels 1x1 2x2 5x2 5x8 8xdense
points monuseg --tests 12 --labels 1x1 2x2 5x2 5x8 3xdense
points vnc_em --labels 1x1 2x2 5x2 5x8 5xdense
points camvid --tests 20 --labels 1x1 2x2 5x2 5x8 5xdense
score --sets vnc_em camvid --tests 20 --labels 5x8 --methods "$default"

own glas --scales 4 --steps 2055
own monuseg --steps 500 --start-from mdm-nuclei
score --sets glas --tests 20 --labels 2x2 5x2 5x8 8xdense --methods \
    "mlp(smooth=8):$out/glas#2-7@4+filters as the default, own backbone" \
    "mlp:$out/glas#2-7@4+filters as MLPs, own backbone (2,055 steps) and filters"
score --sets monuseg --tests 12 --labels 5x8 3xdense --methods \
    "mlp:$out/monuseg#7+filters as MLPs, own backbone (500 steps) and filters"
score --report
