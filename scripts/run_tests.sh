#!/bin/sh
# Run pytest in two halves side by side, as the machine has two cores at least: the tests with a window, and all others.
# The windows get a virtual display (none pop up) where there is Xvfb, the user's own otherwise. Without any, the others are
# run and the result is a failure that says what is missing.
# usage: run_tests.sh PYTHON [pytest options]
set -eu
python=$1
shift
windows=$(mktemp)
trap 'rm -f "$windows"' EXIT

if command -v xvfb-run >/dev/null 2>&1; then
    unset WAYLAND_DISPLAY
    export QT_QPA_PLATFORM=xcb
    with_display() { xvfb-run --auto-servernum --server-args="-screen 0 1600x1000x24" "$@"; }
elif [ "$(uname)" = Darwin ] || [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    with_display() { "$@"; }
else
    with_display() {
        echo "make test: the GUI tests did NOT run: there is no display and no xvfb-run; install xvfb (see make debian)"
        return 1
    }
fi

none=5 # what pytest ends with when no test was chosen
with_display "$python" -m pytest -m gui -o cache_dir=.pytest_cache/gui "$@" >"$windows" 2>&1 &
beside=$!
trap 'kill "$beside" 2>/dev/null; rm -f "$windows"; exit 130' INT TERM
status=0 status_gui=0
"$python" -m pytest -m "not gui" "$@" || status=$?
echo
echo "The tests with a window:"
wait "$beside" || status_gui=$?
cat "$windows"
if [ "$status" -eq $none ] && [ "$status_gui" -eq $none ]; then
    exit $none
fi
[ "$status" -ne $none ] || status=0
[ "$status_gui" -ne $none ] || status_gui=0
exit $((status > 0 ? status : status_gui))
