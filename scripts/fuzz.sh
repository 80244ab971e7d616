#!/usr/bin/env bash
# Fuzzes the targets of fuzz/, each for SECS seconds (60), or TARGET alone, from the inputs in
# fuzz/corpus and those found by earlier runs in fuzz/found. Says what each run did; the first that
# fails ends it, with the input that does harm.
#
# KEEP=1: takes over into fuzz/corpus what was found and reaches code that nothing there reaches.
#
# The crate has no unsafe code, so no sanitizer is used, and the stable compiler will do.
# SANITIZER=address watches the libraries too; it needs a nightly one: RUSTUP_TOOLCHAIN=nightly.
set -euo pipefail

readonly SECS=${SECS:-60} TARGET=${TARGET:-} KEEP=${KEEP:-} SANITIZER=${SANITIZER:-none}

cd "$(dirname -- "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

command -v cargo >/dev/null || die 'no cargo found: install Rust from https://rustup.rs'
command -v c++ >/dev/null || die 'the fuzzer needs a C++ compiler: install g++ (its name in Debian)'
if ! cargo fuzz --version >/dev/null 2>&1; then
    printf '%s: installing cargo-fuzz\n' "${0##*/}" >&2
    cargo install --locked cargo-fuzz
fi

mapfile -t targets < <(cargo fuzz list --fuzz-dir fuzz)
if [[ -n $TARGET ]]; then
    [[ " ${targets[*]} " == *" $TARGET "* ]] || die "no target $TARGET: there are ${targets[*]}"
    targets=("$TARGET")
fi

log=$(mktemp)
trap 'rm -f -- "$log"' EXIT

# The value of a line of the fuzzer's last report.
stat() {
    sed -n "s/^stat::$1: *//p" "$log"
}

# fuzz TARGET ARGUMENT...
fuzz() {
    local target=$1
    shift
    cargo fuzz run --fuzz-dir fuzz --sanitizer "$SANITIZER" "$target" "$@" >"$log" 2>&1 && return
    tail -n 60 "$log" >&2
    die "$target failed: put the input that did it into fuzz/corpus/$target once it does no harm"
}

# Builds with what it says in sight.
cargo fuzz build --fuzz-dir fuzz --sanitizer "$SANITIZER"
for target in "${targets[@]}"; do
    corpus=fuzz/corpus/$target found=fuzz/found/$target
    mkdir -p "$corpus" "$found"
    if [[ -n $KEEP ]]; then
        before=$(find "$corpus" -type f | wc -l)
        fuzz "$target" "$corpus" "$found" -- -merge=1 -use_counters=0 -max_len=512
        after=$(find "$corpus" -type f | wc -l)
        printf '%s: %d inputs kept, %d of them new\n' "$target" "$after" "$((after - before))"
        continue
    fi
    dict=()
    [[ ! -e fuzz/dict/$target ]] || dict=("-dict=fuzz/dict/$target")
    # One input may take a second and 512 MiB at most.
    fuzz "$target" "$found" "$corpus" -- "-max_total_time=$SECS" -timeout=1 -rss_limit_mb=512 \
        -use_value_profile=1 -print_final_stats=1 "${dict[@]}"
    reached=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
    printf '%s: %d runs, %d a second, %d edges of the code reached, nothing found\n' "$target" \
        "$(stat number_of_executed_units)" "$(stat average_exec_per_sec)" "${reached#cov: }"
done
