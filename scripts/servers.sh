#!/usr/bin/env bash
# Runs a command with a throw-away PostgreSQL and a throw-away Redis, which it finds through
# LISTEN_STREAM_TEST_POSTGRES_URL (a superuser: tests make databases of their own) and
# LISTEN_STREAM_TEST_REDIS_URL. Both servers end with the command, and nothing of them is left.
#
#     scripts/servers.sh cargo test --test it
set -euo pipefail

# Beyond the ports that systems give to outgoing connections.
readonly FIRST_PORT=20000 PORTS=12000 TRIES=20

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

(($#)) || die 'usage: scripts/servers.sh COMMAND [ARGUMENT]...'
export PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"

# The newest PostgreSQL of the distribution, else the one on the path.
pg_bin=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1) ||
    pg_bin=$(command -v initdb) ||
    die 'no PostgreSQL server found: run scripts/install-test-deps.sh'
pg_bin=${pg_bin%/*}
command -v redis-server >/dev/null ||
    die 'no redis-server found: run scripts/install-test-deps.sh'

# PostgreSQL refuses to run as root.
as_user=()
owner=$(id -un)
if ((EUID == 0)); then
    owner=nobody
    id postgres >/dev/null 2>&1 && owner=postgres
    as_user=(setpriv "--reuid=$owner" "--regid=$(id -g "$owner")" --clear-groups --)
fi

# In /tmp whatever TMPDIR says: that user must get there, and a socket's path is at most 107 bytes.
dir=$(mktemp -d /tmp/listen-stream-servers.XXXXXXXX)
postgres_pid=''
redis_pid=''
command_pid=''

# shellcheck disable=SC2317 # the trap calls it
stop() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    # The command leads a process group, so that what it started ends with it.
    [[ -z $command_pid ]] || end TERM "-$command_pid"
    [[ -z $redis_pid ]] || end KILL "$redis_pid"
    # PostgreSQL's "immediate" shutdown: ends its own children, writes nothing more.
    [[ -z $postgres_pid ]] || end QUIT "$postgres_pid"
    rm -rf -- "$dir"
    exit "$status"
}
trap stop EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Sends a signal to a process or a group (a negative id) and waits until it has ended.
end() {
    kill "-$1" -- "$2" 2>/dev/null || true
    wait "${2#-}" 2>/dev/null || true
}

# Becomes a program that runs as the servers' user in their directory: for subshells only.
become() {
    cd "$dir"
    HOME=$dir exec "${as_user[@]}" "$@"
}

random_port() {
    echo $((FIRST_PORT + SRANDOM % PORTS))
}

# Waits until a server answers: await PID COMMAND... Fails when the server has ended instead.
await() {
    local pid=$1 n
    shift
    for ((n = 0; n < 600; n++)); do
        kill -0 "$pid" 2>/dev/null || return 1
        "$@" >/dev/null 2>&1 && return
        sleep 0.05
    done
    return 1
}

# The servers get sessions of their own, so that the interrupt key does not reach them. When
# somebody else takes a port first, the server ends at once, and another port is tried.
start_postgres() {
    local try
    (become "$pg_bin/initdb" -D "$dir/pg" -U postgres -E UTF8 --locale=C.UTF-8 --no-sync \
        --auth=scram-sha-256 --pwfile="$dir/password") >"$dir/initdb.log" 2>&1 ||
        { cat "$dir/initdb.log" >&2 && die 'initdb failed'; }
    for ((try = 0; try < TRIES; try++)); do
        postgres_port=$(random_port)
        become setsid "$pg_bin/postgres" -D "$dir/pg" -p "$postgres_port" -k "$dir" \
            -c listen_addresses=127.0.0.1 -c max_connections=300 >>"$dir/postgres.log" 2>&1 &
        postgres_pid=$!
        await "$postgres_pid" "$pg_bin/pg_isready" -h "$dir" -p "$postgres_port" && return
        end QUIT "$postgres_pid"
        postgres_pid=''
    done
    cat "$dir/postgres.log" >&2
    die 'PostgreSQL did not start'
}

# shellcheck disable=SC2317 # await calls it
redis_answers() {
    [[ $(REDISCLI_AUTH=$password redis-cli -h 127.0.0.1 -p "$redis_port" ping) == PONG ]]
}

start_redis() {
    local try
    for ((try = 0; try < TRIES; try++)); do
        redis_port=$(random_port)
        become setsid redis-server - >>"$dir/redis.log" 2>&1 <<CONF &
bind 127.0.0.1
port $redis_port
requirepass $password
dir $dir
save ""
CONF
        redis_pid=$!
        await "$redis_pid" redis_answers && return
        end KILL "$redis_pid"
        redis_pid=''
    done
    cat "$dir/redis.log" >&2
    die 'Redis did not start'
}

# Other users of the machine can reach the ports, and must not get in.
password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
(umask 077 && printf '%s\n' "$password" >"$dir/password")
((EUID != 0)) || chown -R "$owner:" "$dir"

start_postgres
start_redis
export LISTEN_STREAM_TEST_POSTGRES_URL="postgres://postgres:$password@127.0.0.1:$postgres_port/postgres"
export LISTEN_STREAM_TEST_REDIS_URL="redis://default:$password@127.0.0.1:$redis_port/0"

status=0
if [[ -t 0 ]]; then
    # At a terminal the command may read from it, and hears the interrupt key itself.
    "$@" || status=$?
else
    # A signal to this script alone must not wait until the command has ended.
    set -m
    "$@" <&0 &
    command_pid=$!
    set +m
    wait "$command_pid" || status=$?
    command_pid=''
fi
exit "$status"
