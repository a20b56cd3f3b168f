#!/bin/sh
# The one check command: form, types, layers, dead code, dependencies, shell scripts.
set -eu
cd "$(dirname "$0")/.."
failed=
check() {
    printf '== %s\n' "$*"
    "$@" || failed="$failed $1"
}
check ruff format --check .
check ruff check .
check mypy
check lint-imports
check vulture
check deptry .
check shellcheck run.sh test.sh setup/*.sh images/*.sh .ci/run
[ -z "$failed" ] || {
    printf 'failed:%s\n' "$failed"
    exit 1
}
