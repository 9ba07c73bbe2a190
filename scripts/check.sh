#!/usr/bin/env bash
# What a change must pass besides the tests: format, lints and documentation, all without a warning.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

echo "check: cargo fmt --all --check"
cargo fmt --all --check

echo "check: cargo clippy --release --workspace --all-targets -- -D warnings"
cargo clippy --release --workspace --all-targets -- -D warnings

echo "check: cargo doc --no-deps --workspace, with -D warnings"
RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps --workspace

echo "check: passed"
