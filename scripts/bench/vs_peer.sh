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
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
peer_python="${PEER_PYTHON:-python3}"
limbic="${LIMBIC:-$root/target/release/limbic}"
threads="${THREADS:-$(nproc)}"
lines="${LINES:-$(mktemp)}"

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
if ! "$peer_python" -c "import torch, transformers, peft" 2>/dev/null; then
    echo "$peer_python has no torch, transformers and peft; see the top of this script" >&2
    exit 2
fi
if [ ! -x "$limbic" ]; then
    echo "$limbic is not there; cargo build --release" >&2
    exit 2
fi

: >"$lines"

# run WHO SHAPE-NAME FLAGS...: one JSON line, with who and which beside it
run() {
    local who="$1" name="$2"
    shift 2
    local common=(--steps "${STEPS:-6}" --warmup 2 --threads "$threads")
    echo "bench: $name, $who" >&2
    if [ "$who" = limbic ]; then
        # shellcheck disable=SC2086
        "$limbic" bench step "$@" "${common[@]}" ${LIMBIC_FLAGS:-}
    else
        "$peer_python" "$root/scripts/bench/peer_step.py" "$@" "${common[@]}" --dtype "$who"
    fi | sed "s/^{/{\"who\": \"$who\", \"name\": \"$name\", /" >>"$lines"
}

for ((round = 0; round < ${ROUNDS:-3}; round++)); do
    for name in "${chosen[@]}"; do
        read -ra flags <<<"${shapes[$name]}"
        run limbic "$name" "${flags[@]}"
        for dtype in ${PEER_DTYPES:-float32 bfloat16}; do
            run "$dtype" "$name" "${flags[@]}"
        done
    done
done

"$peer_python" "$root/scripts/bench/report.py" "$lines"
