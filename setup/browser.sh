# shellcheck shell=sh
# Find a browser for tests/browser; on Debian as root install one. Sourced by test.sh.

ensure_chromium() {
    command -v chromium >/dev/null 2>&1 && return
    { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; } || return 1
    say "installing Debian's chromium for tests/browser"
    apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
}
