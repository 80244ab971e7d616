#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: a PostgreSQL server, a Redis server, strace, a
# C compiler, root certificates. Does nothing when all are there. Debian and Ubuntu only.
set -euo pipefail

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

# Prints the packages that are missing, one a line.
missing() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null ||
        echo postgresql
    command -v redis-server >/dev/null || echo redis-server
    command -v strace >/dev/null || echo strace
    command -v cc >/dev/null || printf '%s\n' gcc libc6-dev
    # On other systems certificates live elsewhere, and apt-get could not help anyway.
    if command -v apt-get >/dev/null && [[ ! -s /etc/ssl/certs/ca-certificates.crt ]]; then
        echo ca-certificates
    fi
}

list=$(missing)
[[ -n $list ]] || exit 0
mapfile -t packages <<<"$list"

command -v apt-get >/dev/null ||
    die "the tests need ${packages[*]} (Debian's names), and there is no apt-get here: install them by hand"
if ((EUID != 0)); then
    command -v sudo >/dev/null ||
        die "the tests need ${packages[*]}: install them as root, or run this where sudo works"
    printf '%s: installing %s with sudo\n' "${0##*/}" "${packages[*]}" >&2
    exec sudo -- "$BASH" "${BASH_SOURCE[0]}"
fi

# A second run at the same time waits here, then finds nothing left to do.
exec 9>/run/listen-stream-test-deps.lock
flock 9
list=$(missing)
[[ -n $list ]] || exit 0
mapfile -t packages <<<"$list"

policy=/usr/sbin/policy-rc.d
dropin=/etc/postgresql-common/createcluster.d/listen-stream-tests.conf
made=()
# shellcheck disable=SC2317 # the trap calls it
tidy() {
    ((${#made[@]} == 0)) || rm -f -- "${made[@]}"
    rmdir --ignore-fail-on-non-empty -- "${dropin%/*}" 2>/dev/null || true
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

install_packages() {
    apt-get -qq -o DPkg::Lock::Timeout=600 install --yes --no-install-recommends -- "$@" >&2
}

export DEBIAN_FRONTEND=noninteractive
printf '%s: installing %s\n' "${0##*/}" "${packages[*]}" >&2
apt-get -qq -o DPkg::Lock::Timeout=600 update >&2 ||
    echo 'apt-get update failed: trying with the lists that are here' >&2

# The tests start servers of their own: the packages shall neither start nor keep one.
if [[ ! -e $policy ]]; then
    made+=("$policy")
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
if [[ " ${packages[*]} " == *' postgresql '* ]]; then
    install_packages postgresql-common
    made+=("$dropin")
    mkdir -p "${dropin%/*}"
    echo 'create_main_cluster = false' >"$dropin"
fi
install_packages "${packages[@]}"
if [[ " ${packages[*]} " == *' redis-server '* ]] && command -v systemctl >/dev/null; then
    systemctl --quiet disable redis-server.service >&2 || true
fi
