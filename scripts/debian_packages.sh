#!/bin/sh
# Debian and Ubuntu packages that the GUI tests need: a virtual display and what Qt and OpenGL load. As root they are
# installed; otherwise one line says what to install, and everything that needs no display goes on.
set -eu

packages="
xvfb xauth
libegl1 libgl1 libgl1-mesa-dri libopengl0
libdbus-1-3 libfontconfig1 libglib2.0-0
libx11-xcb1 libxkbcommon0 libxkbcommon-x11-0
libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-render0 libxcb-shape0
libxcb-shm0 libxcb-sync1 libxcb-xfixes0 libxcb-xkb1
"

command -v dpkg-query >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1 || exit 0

installed() {  # newer releases renamed some libraries to NAMEt64
    dpkg-query --show --showformat='${db:Status-Status}\n' "$1" "$1t64" 2>/dev/null | grep -qx installed
}

missing=""
for package in $packages; do
    installed "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "make debian: the GUI tests need these packages; run: sudo apt-get install$missing" >&2
    exit 0
fi
echo "make debian: installing$missing"
apt-get update -q
# shellcheck disable=SC2086  # one word a package
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
