#!/bin/sh
# All checks and tests: `./test.sh`, or `./test.sh PATH...` for some of them. What is skipped is said, with the reason.
set -eu
cd "$(dirname "$0")"
# shellcheck source=setup/common.sh
. setup/common.sh
# shellcheck source=setup/engine.sh
. setup/engine.sh

ensure_venv test -e '.[test]' "torch==$TORCH_VERSION"
PATH=$(cd "$VENV/bin" && pwd):$PATH
export PATH

if [ $# -gt 0 ]; then
    exec python -m pytest -rs "$@"
fi
sh setup/check.sh
python -m pytest -rs --durations=10 tests/unit tests/house
if ensure_engine; then
    detbuild base ensure
    python -m pytest -rs --durations=10 tests/engine tests/e2e tests/faults
else
    say "SKIPPED tests/engine, tests/e2e and tests/faults: no Docker Engine is to be had (see above)"
fi
