#!/usr/bin/env bash
# How the cost of a training step grows with positions, samples, blocks, vocabulary and supervised positions, of limbic and
# of PyTorch + PEFT: one shape is varied in one number at a time. Prints the machine and a Markdown table.
#
#     PEER_PYTHON=venv/bin/python scripts/bench/scaling.sh
#     scripts/bench/scaling.sh seq batch         some of the numbers
#
# Variables are those of vs_peer.sh; unless they are set, ROUNDS is 1 and PEER_DTYPES is float32.
set -euo pipefail
PEER_DTYPES="${PEER_DTYPES:-float32}"
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

declare -A values=(
    [seq]="128 256 512 1024"
    [batch]="1 2 4 8"
    [layers]="2 4 8 16"
    [vocab]="8000 32000 128000"
    [answer]="4 32 128 255"
)
order=(seq batch layers vocab answer)
base=(--dim 512 --layers 4 --heads 8 --kv-heads 8 --ffn 1376 --vocab 32000 --batch 4 --seq 256 --answer 12)

chosen=("$@")
[ $# -gt 0 ] || chosen=("${order[@]}")
for number in "${chosen[@]}"; do
    if [ -z "${values[$number]:-}" ]; then
        echo "\`$number\` is not varied; wanted some of ${order[*]}" >&2
        exit 2
    fi
done

start

# The base's value of a flag gives way to the one that is varied.
with() {
    local flag="--$1" value="$2" index
    flags=("${base[@]}")
    for ((index = 0; index < ${#flags[@]}; index += 2)); do
        if [ "${flags[$index]}" = "$flag" ]; then flags[index + 1]="$value"; fi
    done
}

for ((round = 0; round < ${ROUNDS:-1}; round++)); do
    for number in "${chosen[@]}"; do
        for value in ${values[$number]}; do
            with "$number" "$value"
            run "\"name\": \"$number\", \"value\": $value" "${flags[@]}"
        done
    done
done

report
