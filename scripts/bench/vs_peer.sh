#!/usr/bin/env bash
# limbic and PyTorch + PEFT on the same training steps, one after the other and again, on this machine: prints the machine
# and a Markdown table of ratios. Nothing else should run meanwhile.
#
#     scripts/bench/vs_peer.sh                   all shapes
#     scripts/bench/vs_peer.sh S L               some of them
#     scripts/bench/vs_peer.sh list              what they are
#
# The peer needs a Python with its packages:
#     python3 -m venv venv && venv/bin/pip install torch transformers peft
#     PEER_PYTHON=venv/bin/python scripts/bench/vs_peer.sh
#
# ROUNDS (3)        how often each of them runs a shape; the median of the medians counts
# STEPS (6)         timed steps of each run, after 2 that are not
# THREADS           threads of both; by default one a core
# PEER_DTYPES       what the peer computes in: "float32 bfloat16"
# LIMBIC            the program; by default target/release/limbic
# LIMBIC_FLAGS      more flags for it, for example "--shards 2"
# LINES             a file for all JSON lines, emptied first; by default they are thrown away
set -euo pipefail
PEER_DTYPES="${PEER_DTYPES:-float32 bfloat16}"
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

declare -A shapes=(
    [S]="--dim 512 --layers 8 --heads 8 --kv-heads 8 --ffn 1376 --vocab 32000 --batch 4 --seq 340 --answer 12"
    [S-every]="--dim 512 --layers 8 --heads 8 --kv-heads 8 --ffn 1376 --vocab 32000 --batch 4 --seq 340 --every-position"
    [L]="--dim 1024 --layers 12 --heads 16 --kv-heads 16 --ffn 2752 --vocab 32000 --batch 2 --seq 512 --answer 40"
    [GQA]="--dim 896 --layers 6 --heads 14 --kv-heads 2 --ffn 4864 --vocab 64000 --batch 2 --seq 256 --answer 24"
    [long]="--dim 512 --layers 4 --heads 8 --kv-heads 4 --ffn 1376 --vocab 32000 --batch 1 --seq 2048 --answer 64"
)
order=(S S-every L GQA long)

if [ "${1:-}" = list ]; then
    for name in "${order[@]}"; do echo "$name: ${shapes[$name]}"; done
    exit
fi
chosen=("$@")
[ $# -gt 0 ] || chosen=("${order[@]}")
for name in "${chosen[@]}"; do
    if [ -z "${shapes[$name]:-}" ]; then
        echo "no shape \`$name\`; wanted some of ${order[*]}" >&2
        exit 2
    fi
done
start

for ((round = 0; round < ${ROUNDS:-3}; round++)); do
    for name in "${chosen[@]}"; do
        read -ra flags <<<"${shapes[$name]}"
        run "\"name\": \"$name\"" "${flags[@]}"
    done
done

report
