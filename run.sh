#!/bin/sh
# The main job: set up whatever is missing, then train examples/digits_pytorch in a container.
set -eu
cd "$(dirname "$0")"
# shellcheck source=setup/common.sh
. setup/common.sh
# shellcheck source=setup/engine.sh
. setup/engine.sh

EXAMPLE=examples/digits_pytorch

ensure_venv run -e .
if ensure_engine; then
    "$VENV/bin/detbuild" base ensure
    exec "$VENV/bin/detbuild" create "$EXAMPLE/const.yaml" "$EXAMPLE" --follow "$@"
fi
say "No Docker Engine available; running the trial in this Python (--local)."
ensure_venv run-local -e . "torch==$TORCH_VERSION" numpy -r "$EXAMPLE/requirements.txt"
exec "$VENV/bin/detbuild" create "$EXAMPLE/const.yaml" "$EXAMPLE" --local "$@"
