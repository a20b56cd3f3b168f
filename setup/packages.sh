# shellcheck shell=sh
# Find what single tests need besides Python; on Debian as root install it. Sourced by test.sh.

install_packages() {
    { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; } || return 1
    say "installing Debian's $1"
    apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# For tests/browser.
ensure_chromium() {
    command -v chromium >/dev/null 2>&1 || install_packages chromium fonts-dejavu-core
}

# For a wall clock that jumps, in tests/faults.
ensure_faketime() {
    for library in /usr/lib/*/faketime/libfaketime.so.1; do
        [ -e "$library" ] && return
    done
    install_packages libfaketime
}
