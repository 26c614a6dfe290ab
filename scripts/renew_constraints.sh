#!/bin/sh
# Write constraints.txt anew from the newest packages that pyproject.toml allows, in an environment of its own.
# usage: renew_constraints.sh [PYTHON]      (run in the root of the checkout; the oldest Python supported is best)
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${1:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet "pip==26.3"
"$folder/bin/python" -m pip install --quiet --group dev --group gui --editable .
{
    echo "# Every package that \`make install\` installs, pinned. Made by scripts/renew_constraints.sh; do not edit by hand."
    # no local versions (torch's +cpu) and no CUDA packages: which build of PyTorch it is, is the machine's affair
    "$folder/bin/python" -m pip freeze --exclude-editable --all \
        | grep -E '^[A-Za-z0-9._-]+==' \
        | grep -v -i -E '^(pip|mdm-studio|nvidia-.*|cuda-.*|triton)==' \
        | sed 's/+.*//'
} > constraints.txt.new
mv constraints.txt.new constraints.txt
