#!/usr/bin/env bash
# Runs three nodes of one system on this machine: on a PostgreSQL and a Redis of their own, with one
# master key and one admin token. Ctrl-C ends all of it. What users stored ends with it; what is in the
# folder (data/cluster) stays until the next start, to be looked at.
#
#     scripts/cluster.sh                    the release build, ports 8091 to 8093 and 9091 to 9093
#     PORT=7001 ADMIN_PORT=7011 DATA=/tmp/x BINARY=target/debug/listen-stream scripts/cluster.sh
set -euo pipefail

readonly NODES=3
root=$(cd "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
port=${PORT:-8091}
admin_port=${ADMIN_PORT:-9091}
data=${DATA:-$root/data/cluster}
binary=${BINARY:-${CARGO_TARGET_DIR:-$root/target}/release/listen-stream}

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

# PostgreSQL and Redis come from the script that has them for tests too, and end with it.
if [[ ${1:-} != --on-servers ]]; then
    [[ -x $binary ]] || die "no program at $binary: make cluster builds it"
    exec "$root/scripts/servers.sh" "${BASH_SOURCE[0]}" --on-servers
fi

pids=()

# shellcheck disable=SC2317 # the trap calls it
stop() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    ((${#pids[@]} == 0)) || kill -TERM "${pids[@]}" 2>/dev/null || true
    wait
    exit "$status"
}
trap stop EXIT
trap 'exit 0' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

random_hex() {
    od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'
}

# Only what an earlier run made is removed.
mark=$data/made-by-cluster.sh
if [[ -e $data ]]; then
    [[ -e $mark ]] || die "$data is something else's: name another folder with DATA"
    rm -rf -- "$data"
fi
umask 077
mkdir -p -- "$data"
: >"$mark"
head -c 32 /dev/urandom | base64 >"$data/master.key"
random_hex 32 >"$data/admin.token"
printf '%s' "$LISTEN_STREAM_TEST_POSTGRES_URL" >"$data/postgres.url"
printf '%s' "$LISTEN_STREAM_TEST_REDIS_URL" >"$data/redis.url"

# Settings that the caller has for another server would be taken for these.
for name in $(compgen -e LISTEN_STREAM_); do
    unset "$name"
done
export LISTEN_STREAM__KEYS__MASTER_KEY_FILE=$data/master.key
export LISTEN_STREAM__ADMIN__TOKEN_FILE=$data/admin.token
export LISTEN_STREAM__DATABASE__URL_FILE=$data/postgres.url
export LISTEN_STREAM__REDIS__URL_FILE=$data/redis.url

# Whether a node says that it is ready.
ready() {
    local status=''
    {
        exec 3<>"/dev/tcp/127.0.0.1/$1" &&
            printf 'GET /ready HTTP/1.0\r\n\r\n' >&3 &&
            read -r _ status _ <&3
        exec 3>&-
    } 2>/dev/null || true
    [[ $status == 200 ]]
}

for ((n = 1; n <= NODES; n++)); do
    "$binary" serve --data "$data/node-$n" --listen "127.0.0.1:$((port + n - 1))" \
        --admin-listen "127.0.0.1:$((admin_port + n - 1))" >"$data/node-$n.log" 2>&1 &
    pids+=("$!")
    printf '%d\n' "$!" >"$data/node-$n.pid"
done
for ((n = 1; n <= NODES; n++)); do
    until ready "$((port + n - 1))"; do
        kill -0 "${pids[n - 1]}" 2>/dev/null ||
            { cat -- "$data/node-$n.log" >&2 && die "node $n did not start"; }
        sleep 0.1
    done
done

shown=${data/#"$PWD"\//./}
echo 'three nodes of one system are ready'
for ((n = 1; n <= NODES; n++)); do
    printf '  node %d   API http://127.0.0.1:%d   admin http://127.0.0.1:%d   in %s\n' \
        "$n" "$((port + n - 1))" "$((admin_port + n - 1))" "$shown/node-$n"
done
printf '  admin token   %s\n' "$shown/admin.token"

# A node that ends alone is missed by nobody but its devices: the others go on.
left=("${pids[@]}")
while ((${#left[@]} > 0)); do
    status=0
    # Bash itself would tell of one that was killed.
    wait -n -p ended "${left[@]}" 2>/dev/null || status=$?
    for n in "${!pids[@]}"; do
        [[ ${pids[n]} != "$ended" ]] || printf 'node %d has ended (%d)\n' "$((n + 1))" "$status"
    done
    for n in "${!left[@]}"; do
        [[ ${left[n]} != "$ended" ]] || unset "left[n]"
    done
done
