#!/bin/sh
# Make the virtual environment, or leave a working one alone.
# usage: venv.sh PYTHON FOLDER
set -eu
python=$1
folder=$2
recent='import sys; sys.exit(sys.version_info < (3, 11))'

fail() {
    echo "make install: $1" >&2
    exit 1
}

if [ -x "$folder/bin/python" ] && "$folder/bin/python" -c "$recent" 2>/dev/null \
    && "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi

command -v "$python" >/dev/null 2>&1 \
    || fail "no '$python' here; install Python 3.11 or newer, or name one: make install PYTHON=/path/to/python3"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c "$recent" \
    || fail "'$python' is Python $version and MDM Studio needs 3.11 or newer; name one: make install PYTHON=python3.12"

# Debian and Ubuntu ship Python without ensurepip, and venv then fails half-way
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package="python$version-venv"
    command -v apt-get >/dev/null 2>&1 \
        || fail "Python $version has no 'venv' and 'ensurepip' modules; install your system's package that brings them"
    [ "$(id -u)" = 0 ] || fail "the Debian package $package is missing; run: sudo apt-get install $package"
    echo "make install: installing the Debian package $package"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$package" \
        || fail "could not install $package; see apt-get's words above"
fi

exec "$python" -m venv --clear "$folder"
