#!/bin/sh
# All checks and tests: `./test.sh`, or `./test.sh PATH...` for some of them. What is skipped is said, with the reason.
set -eu
cd "$(dirname "$0")"
# shellcheck source=setup/common.sh
. setup/common.sh
# shellcheck source=setup/engine.sh
. setup/engine.sh
# shellcheck source=setup/packages.sh
. setup/packages.sh

ensure_venv test -e '.[test]' "torch==$TORCH_VERSION"
PATH=$(cd "$VENV/bin" && pwd):$PATH
export PATH

if [ $# -gt 0 ]; then
    exec python -m pytest -rs "$@"
fi
sh setup/check.sh
python -m pytest -rs --durations=10 tests/unit tests/house
if ensure_chromium; then
    python -m pytest -rs tests/browser
else
    say "SKIPPED tests/browser: chromium is not to be had"
fi

# What Determined itself reports is compared with the goldens of tests/peer, in an environment without detbuild.
peer_stage() (
    # shellcheck disable=SC2030
    VENV=$VENV-determined
    if ensure_venv peer determined==0.38.1 "torch==$TORCH_VERSION"; then
        "$PYTHON" tests/peer/record.py "$VENV/recorded.json" --check tests/peer/goldens.json
    else
        say "SKIPPED tests/peer: determined 0.38.1 cannot be installed for this Python (see above)"
    fi
)
peer_stage

# Keras trials are tested on both generations of Keras, each with a virtual environment of its own.
test_keras() (
    # shellcheck disable=SC2031
    VENV=$VENV-tensorflow-$1
    if ensure_venv keras -e . "$(tensorflow_project)==$1" pytest hypothesis scikit-learn; then
        "$PYTHON" -m pytest -rs --durations=3 tests/unit/harness/keras
    else
        say "SKIPPED tests/unit/harness/keras on TensorFlow $1: it cannot be installed for this Python (see above)"
    fi
)
test_keras "$TENSORFLOW_VERSION"
test_keras "$KERAS_2_TENSORFLOW"
if ensure_engine; then
    ensure_faketime || say "libfaketime cannot be installed: a test of the wall clock will be skipped"
    detbuild base ensure
    python -m pytest -rs --durations=10 tests/engine tests/e2e tests/faults
else
    say "SKIPPED tests/engine, tests/e2e and tests/faults: no Docker Engine available (see above)"
fi
