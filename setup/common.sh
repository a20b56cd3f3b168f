# shellcheck shell=sh disable=SC2034
# Find Python and make the virtual environment. Sourced by run.sh and test.sh; expects to stand in the project's root.

VENV=${DETBUILD_VENV:-.venv}
TORCH_VERSION=2.13.0 # the one that images get by default; see images/
TENSORFLOW_VERSION=2.21.0 # as above
KERAS_2_TENSORFLOW=2.15.1 # the last with Keras 2

say() { printf '%s\n' "$*" >&2; }

# A Python fits when it is new enough and can make a virtual environment.
python_fits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1
}

find_python() {
    for candidate in python3 python3.11 python3.12 python3.13 python3.10 python3.14 /usr/bin/python3; do
        if command -v "$candidate" >/dev/null && python_fits "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

install_python() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "no Python 3.10 or newer with venv; installing Debian's"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv >/dev/null
    else
        say "Python 3.10 or newer with its venv module is needed (on Debian: apt-get install python3 python3-venv)"
        return 1
    fi
}

# ensure_venv NAME REQUIREMENT...: install them unless exactly that was installed before.
ensure_venv() {
    stamp=$VENV/.installed-$1
    shift
    if [ ! -x "$VENV/bin/python" ]; then
        base=$(find_python) || { install_python && base=$(find_python); } || return 1
        say "making the virtual environment $VENV with $base"
        "$base" -m venv "$VENV" || return 1
    fi
    wanted=$({ printf '%s\n' "$@" && cat pyproject.toml; } | cksum)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        say "installing $*"
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@" 2>"$VENV/pip.log" || {
            tail -n 20 "$VENV/pip.log" >&2
            return 1
        }
        printf '%s\n' "$wanted" >"$stamp"
    fi
    PYTHON=$VENV/bin/python
}

# Print the name of TensorFlow's project: the one for CPUs only exists for x86-64 alone.
tensorflow_project() {
    if [ "$(uname -m)" = x86_64 ]; then echo tensorflow-cpu; else echo tensorflow; fi
}
