#!/usr/bin/env bash
# Runs every check and every test, after it has installed what is missing for them. Arguments go
# to `cargo test`.
set -euo pipefail

cd "$(dirname -- "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"
command -v cargo >/dev/null || {
    echo 'test.sh: no cargo found: install Rust from https://rustup.rs' >&2
    exit 1
}

# A minimal toolchain comes without them.
for tool in fmt clippy; do
    cargo "$tool" --version >/dev/null 2>&1 || rustup component add "${tool/#fmt/rustfmt}"
done
scripts/install-test-deps.sh
cargo fmt --check
cargo clippy --locked --all-targets --all-features -- -D warnings
exec scripts/servers.sh cargo test --locked --all-features "$@"
