# shellcheck shell=sh
# Find a Docker Engine; on Debian as root install and start one where none answers. Sourced by run.sh and test.sh.

ENGINE_SOURCES=/etc/apt/sources.list.d/detbuild-engine.sources
ENGINE_PINS=/etc/apt/preferences.d/detbuild-engine
DEBIAN_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
ENGINE_LOG=/var/log/detbuild-dockerd.log

engine_answers() {
    "$PYTHON" -c 'import docker; docker.from_env(timeout=5).ping()' >/dev/null 2>&1
}

# Print the Debian mirror that apt itself uses; nothing here knows a mirror's name.
debian_mirror() {
    # shellcheck disable=SC2016  # apt fills in the names
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk '$1 == "Debian" && $2 !~ /security/ { print $2; exit }'
}

# Newer suites become visible, but with a pin of -1 nothing comes from them unless it is named.
add_engine_suites() {
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || { apt-get update -qq && mirror=$(debian_mirror); }
    [ -n "$mirror" ] || { say "apt has no Debian mirror"; return 1; }
    for suite in trixie forky; do
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n\n' "$mirror" "$suite" "$DEBIAN_KEYRING"
    done >"$ENGINE_SOURCES"
    for suite in trixie forky; do
        printf 'Package: *\nPin: release n=%s\nPin-Priority: -1\n\n' "$suite"
    done >"$ENGINE_PINS"
    # A suite that cannot be read is not the end: the other one may have an engine too.
    apt-get update -qq || true
}

install_engine() {
    say "no Docker Engine answers; installing Debian's docker.io"
    add_engine_suites || return 1
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends \
        'docker.io=28.5.2*' docker-buildx/forky docker-cli/forky tini-static/forky containerd/trixie \
        >/dev/null 2>"$ENGINE_LOG" && return 0
    say "docker.io 28.5.2 did not install (see $ENGINE_LOG); trying the one of trixie"
    apt-get install -y -qq --no-install-recommends docker.io/trixie docker-cli/trixie containerd/trixie \
        docker-buildx/trixie >/dev/null 2>>"$ENGINE_LOG"
}

start_engine() {
    if [ -d /run/systemd/system ]; then
        systemctl start docker
    else
        # A pid file of an engine that was killed must not keep the new one away.
        [ "$(cat "/proc/$(cat /var/run/docker.pid 2>/dev/null)/comm" 2>/dev/null)" = dockerd ] || rm -f /var/run/docker.pid
        setsid nohup dockerd >>"$ENGINE_LOG" 2>&1 </dev/null &
    fi
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
        engine_answers && return 0
        sleep 1
    done
    say "dockerd did not come up within 30 s; the end of $ENGINE_LOG:"
    tail -n 15 "$ENGINE_LOG" >&2
    return 1
}

# Return 0 when an engine answers at the end.
ensure_engine() {
    engine_answers && return 0
    if [ -n "${DOCKER_HOST:-}" ]; then
        say "no Docker Engine answers at DOCKER_HOST=$DOCKER_HOST"
        return 1
    fi
    if [ "$(id -u)" != 0 ] || ! grep -qs '^ID=debian' /etc/os-release; then
        say "no Docker Engine answers. Install and start one (on Debian: apt-get install docker.io),"
        say "then run this again; ./run.sh installs it itself only on Debian and as root."
        return 1
    fi
    command -v dockerd >/dev/null || install_engine || return 1
    start_engine
}
