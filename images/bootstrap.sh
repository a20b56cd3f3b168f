#!/bin/sh
# Make a base image's root file system from Debian packages, for hosts that reach no registry.
#
#   bootstrap.sh FILE    write it to FILE as a tar (also gzip or zstd, by the file's ending); "-" is stdout
#   bootstrap.sh --tag   print the tag under which detbuild looks for it; nothing is made
#
# Needs Debian, root, and mmdebstrap (installed when it is missing). The mirror and the suite are those of the host's
# own apt. Two runs against the same state of the mirror give the same bytes.
set -eu

PACKAGES=ca-certificates,python3,python3-venv

# Clamps every time in the archive: what was built when must not decide the image's identity.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1767225600}
export SOURCE_DATE_EPOCH

say() { printf 'bootstrap: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# Debian has one Python 3 a release.
tag() {
    case $1 in
        bookworm) echo detbuild-base:cpu-debian12-py3.11 ;;
        trixie) echo detbuild-base:cpu-debian13-py3.13 ;;
        *) fail "knows bookworm and trixie, not $1" ;;
    esac
}

# URIs that apt itself fetches Debian's packages from; nothing here knows a mirror's name.
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
[ -r /etc/os-release ] || fail "this is not Debian: no /etc/os-release"
# shellcheck source=/dev/null
. /etc/os-release
[ "$ID" = debian ] || fail "needs Debian's packages; this host is $ID. Load a base image from a file instead (docker load)"
name=$(tag "$VERSION_CODENAME")
if [ "$1" = --tag ]; then
    echo "$name"
    exit 0
fi

[ "$(id -u)" = 0 ] || fail "needs root: the files of the image belong to root"
if ! command -v mmdebstrap >/dev/null; then
    say "installing mmdebstrap"
    # One unreadable source of many does not keep the package away, so the update's own verdict does not count.
    { apt-get update -qq || true; } >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap >&2 ||
        fail "mmdebstrap did not install"
fi

sources=$(mirrors "$VERSION_CODENAME")
[ -n "$sources" ] || {
    apt-get update -qq >&2 || true
    sources=$(mirrors "$VERSION_CODENAME")
}
[ -n "$sources" ] || fail "apt knows no Debian mirror of $VERSION_CODENAME; look at /etc/apt/sources.list.d"

# A mirror that is frozen on purpose has lists past their date: what the host's apt accepts is accepted here.
dated=$(apt-config dump --format '%v' Acquire::Check-Valid-Until)

say "making $name; takes about half a minute"
# Documentation, translations and caches are never read in a container.
printf '%s\n' "$sources" | mmdebstrap --quiet --mode=root --variant=minbase --include="$PACKAGES" \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --aptopt='Acquire::Languages "none"' \
    --aptopt="Acquire::Check-Valid-Until \"${dated:-true}\"" \
    "$VERSION_CODENAME" "$1" -
