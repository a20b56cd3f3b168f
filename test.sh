#!/bin/sh
# Checks and tests: `./test.sh` those of every change, `./test.sh --all` everything, `./test.sh PATH...` some tests.
# What is skipped is named, with the reason.
set -eu
cd "$(dirname "$0")"
# shellcheck source=setup/common.sh
. setup/common.sh
# shellcheck source=setup/engine.sh
. setup/engine.sh
# shellcheck source=setup/packages.sh
. setup/packages.sh

all=
if [ "${1:-}" = --all ]; then
    all=yes
    shift
fi
ensure_venv test -e '.[test]' "torch==$TORCH_VERSION"
PATH=$(cd "$VENV/bin" && pwd):$PATH
export PATH

if [ $# -gt 0 ]; then
    exec python -m pytest -rs "$@"
fi

# Keras trials are tested on both generations of Keras, each in its own virtual environment.
keras() (
    # shellcheck disable=SC2030
    VENV=$VENV-tensorflow-$1
    if ensure_venv keras -e . "$(tensorflow_project)==$1" pytest hypothesis scikit-learn; then
        "$PYTHON" -m pytest -rs --durations=3 tests/unit/harness/keras
    else
        say "SKIPPED tests/unit/harness/keras on TensorFlow $1: it cannot be installed for this Python (see above)"
    fi
)

# engine MARKS: the tests on a real engine that have these marks.
engine() {
    if ensure_engine; then
        ensure_faketime || say "libfaketime cannot be installed: a test of the wall clock will be skipped"
        detbuild base ensure
        python -m pytest -rs --durations=10 -m "$1" tests/engine tests/e2e tests/faults
    else
        say "SKIPPED tests/engine, tests/e2e and tests/faults: no Docker Engine available (see above)"
    fi
}

browser() {
    if ensure_chromium; then
        python -m pytest -rs tests/browser
    else
        say "SKIPPED tests/browser: chromium cannot be installed"
    fi
}

# The reports of Determined itself are compared with the goldens of tests/peer, in an environment without detbuild.
peer() (
    # shellcheck disable=SC2031
    VENV=$VENV-determined
    if ensure_venv peer determined==0.38.1 "torch==$TORCH_VERSION"; then
        "$PYTHON" tests/peer/record.py "$VENV/recorded.json" --check tests/peer/goldens.json
    else
        say "SKIPPED tests/peer: determined 0.38.1 cannot be installed for this Python (see above)"
    fi
)

sh setup/check.sh
# One process for each core; more threads in each of them would only wait for one another.
OMP_NUM_THREADS=1 python -m pytest -rs --durations=10 -n auto --dist worksteal tests/unit tests/house
keras "$TENSORFLOW_VERSION"
engine "not long"
if [ -z "$all" ]; then
    say "SKIPPED without --all: tests/browser, tests/peer, Keras 2, and tests on the engine that are marked long"
    exit
fi
keras "$KERAS_2_TENSORFLOW"
browser
peer
engine long
