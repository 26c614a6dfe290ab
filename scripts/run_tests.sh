#!/bin/sh
# Run pytest with a display for the GUI tests: a virtual one where there is Xvfb (no windows pop up), the user's own
# otherwise. Without any, everything else is run and the result is a failure that says what is missing.
# usage: run_tests.sh PYTHON [pytest options]
set -eu
python=$1
shift

if command -v xvfb-run >/dev/null 2>&1; then
    unset WAYLAND_DISPLAY
    export QT_QPA_PLATFORM=xcb
    exec xvfb-run --auto-servernum --server-args="-screen 0 1600x1000x24" "$python" -m pytest "$@"
fi
if [ "$(uname)" = Darwin ] || [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    exec "$python" -m pytest "$@"
fi
status=0
"$python" -m pytest -m "not gui" "$@" || status=$?
echo "make test: the GUI tests did NOT run: there is no display and no xvfb-run; install xvfb (see make debian)" >&2
exit $((status > 0 ? status : 1))
