#!/usr/bin/env bash
# All tests: installs system packages where they are missing, then builds and tests every crate.
# Needs no GPU and, apart from installing packages, no network. Arguments go to cargo test:
#     scripts/test.sh -p limbic-eval
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh

if [ $# -eq 0 ]; then
    set -- --workspace
fi
echo "test: cargo test --release $*"
cargo test --release "$@"
