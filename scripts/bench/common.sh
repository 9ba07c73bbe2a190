# What vs_peer.sh and scaling.sh share, to be sourced: what both programs are, and a run of one of them. The variables are
# described at the top of vs_peer.sh.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
peer_python="${PEER_PYTHON:-python3}"
limbic="${LIMBIC:-$root/target/release/limbic}"
lines="${LINES:-$(mktemp)}"
common=(--steps "${STEPS:-6}" --warmup 2 --threads "${THREADS:-$(nproc)}")

# Ends where one of the two is not there, and empties the file of lines.
start() {
    if ! "$peer_python" -c "import torch, transformers, peft" 2>/dev/null; then
        echo "$peer_python has no torch, transformers and peft; see the top of vs_peer.sh" >&2
        exit 2
    fi
    if [ ! -x "$limbic" ]; then
        echo "$limbic is not there; cargo build --release" >&2
        exit 2
    fi
    : >"$lines"
}

# Runs limbic, then the peer in each of PEER_DTYPES: run LABEL FLAG..., where LABEL are the members of a JSON object that say
# what is run. Who ran it stands before them.
run() {
    local label="$1" dtype
    shift
    echo "bench: $label, limbic" >&2
    # shellcheck disable=SC2086
    "$limbic" bench step "$@" "${common[@]}" ${LIMBIC_FLAGS:-} |
        sed "s/^{/{\"who\": \"limbic\", $label, /" >>"$lines"
    for dtype in $PEER_DTYPES; do
        echo "bench: $label, $dtype" >&2
        "$peer_python" "$root/scripts/bench/peer_step.py" "$@" "${common[@]}" --dtype "$dtype" |
            sed "s/^{/{\"who\": \"$dtype\", $label, /" >>"$lines"
    done
}

report() {
    "$peer_python" "$root/scripts/bench/report.py" "$lines"
}
