#!/usr/bin/env bash
# Checks the model of the session protocol (tests/model) in its larger configurations, compiled with
# optimisation: with the tests' own profile it would take twenty times as long.
#
#     OWN="devices=2 commits=2 breaks=1"   one configuration of your own, see tests/model/config.rs
#     ALL=1                                those too that take an hour and 6 GB
set -euo pipefail

cd "$(dirname -- "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"

which=(--include-ignored --skip huge_ --skip own)
if [[ -n ${OWN:-} ]]; then
    export MODEL=$OWN
    which=(--ignored --exact own)
elif [[ -n ${ALL:-} ]]; then
    which=(--include-ignored --skip own)
fi
# Only this crate: the libraries are those of the tests.
exec cargo test --locked --config profile.dev.package.listen-stream.opt-level=3 --test model -- \
    "${which[@]}" --nocapture --test-threads=1
