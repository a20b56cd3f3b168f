#!/bin/sh
# Make the root file system of a base image from Debian packages, for hosts without access to a registry.
#
#   bootstrap.sh FILE    write it to FILE as a tar (gzip or zstd by its suffix); "-" is stdout
#   bootstrap.sh --tag   print the image tag that detbuild looks for, and make nothing
#
# Needs Debian, root, and mmdebstrap (installed if missing). Uses the mirror and the suite of the host's apt.
# Reproducible: the same state of the mirror gives the same bytes.
set -eu

PACKAGES=ca-certificates,python3,python3-venv

# Clamps every timestamp in the archive, so that the image ID does not depend on the time of the build.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1767225600}
export SOURCE_DATE_EPOCH

say() { printf 'bootstrap: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# Each Debian release has one Python 3.
tag() {
    case $1 in
        bookworm) echo detbuild-base:cpu-debian12-py3.11 ;;
        trixie) echo detbuild-base:cpu-debian13-py3.13 ;;
        *) fail "unsupported Debian release $1; expected bookworm or trixie" ;;
    esac
}

# The mirrors of the host's apt; no mirror is hard-coded.
mirrors() {
    # shellcheck disable=SC2016  # apt fills in the names
    apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk -v suite="$1" '
            $1 != "Debian" || seen[$2, $3]++ { next }
            $2 == suite || $2 == suite "-updates" || $2 == suite "-security" {
                print "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " $3 " " $2 " main"
            }'
}

[ $# = 1 ] || fail "usage: bootstrap.sh FILE | --tag"
[ -r /etc/os-release ] || fail "not Debian: no /etc/os-release"
# shellcheck source=/dev/null
. /etc/os-release
[ "$ID" = debian ] || fail "needs Debian, but this host is $ID; load a base image from a file instead (docker load)"
name=$(tag "$VERSION_CODENAME")
if [ "$1" = --tag ]; then
    echo "$name"
    exit 0
fi

[ "$(id -u)" = 0 ] || fail "needs root, the owner of the image's files"
if ! command -v mmdebstrap >/dev/null; then
    say "installing mmdebstrap"
    # apt-get update may fail for one of many sources while the package is available from another.
    { apt-get update -qq || true; } >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap >&2 ||
        fail "cannot install mmdebstrap"
fi

sources=$(mirrors "$VERSION_CODENAME")
[ -n "$sources" ] || {
    apt-get update -qq >&2 || true
    sources=$(mirrors "$VERSION_CODENAME")
}
[ -n "$sources" ] || fail "no Debian mirror of $VERSION_CODENAME in apt's sources; check /etc/apt/sources.list.d"

# Frozen mirrors have expired lists: use the host's setting of Acquire::Check-Valid-Until.
dated=$(apt-config dump --format '%v' Acquire::Check-Valid-Until)

say "making $name (about 30 s)"
# Containers need no documentation or translations.
printf '%s\n' "$sources" | mmdebstrap --quiet --mode=root --variant=minbase --include="$PACKAGES" \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --aptopt='Acquire::Languages "none"' \
    --aptopt="Acquire::Check-Valid-Until \"${dated:-true}\"" \
    "$VERSION_CODENAME" "$1" -
