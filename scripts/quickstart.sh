#!/usr/bin/env bash
# The main job from nothing: installs system packages, builds, makes clips with a face, a voice and words, trains both
# stages, scores the result, exports the adapter and asks about one clip. What is done already is not done again.
#     scripts/quickstart.sh --ablate    also trains stage 2 on each modality alone, and compares
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

data=data/synth
run=quickstart-stage2
recipe=recipes/quickstart/stage2.yaml
export_dir=exports/quickstart
binary="${CARGO_TARGET_DIR:-target}/release/limbic"

ablate=false
for argument in "$@"; do
    case "$argument" in
    --ablate) ablate=true ;;
    *)
        echo "quickstart: \`$argument\` is unknown; usage: scripts/quickstart.sh [--ablate]" >&2
        exit 2
        ;;
    esac
done

scores=$(mktemp -d)
trap 'rm -rf "$scores"' EXIT

parts=()
durations=()

# Runs a command and remembers how long it took: timed NAME COMMAND...
timed() {
    local name=$1 start=$SECONDS
    shift
    printf '\nquickstart: %s\n' "$name"
    "$@"
    parts+=("$name")
    durations+=($((SECONDS - start)))
}

limbic() {
    printf '$ %s' "$binary" >&2
    printf ' %q' "$@" >&2
    printf '\n' >&2
    "$binary" "$@"
}

evaluate() { limbic eval "$1" --split test | tee "$scores/$1"; }

export_adapter() {
    if [ -e "$export_dir" ]; then
        echo "$export_dir is there already and is left as it is; remove it to export again"
    else
        limbic export "$run" --out "$export_dir"
    fi
}

# A text value of a manifest line that was written by limbic: value KEY LINE
value() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" <<<"$2"; }

clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

timed "system packages" scripts/setup.sh
timed "build" cargo build --release
built=$SECONDS

timed "synthesise clips" limbic data synth --out "$data" --clips 480 --seed 7
timed "train stage 1" limbic train recipes/quickstart/stage1.yaml
timed "train stage 2" limbic train "$recipe"
timed "evaluate" evaluate "$run"
timed "export" export_adapter

line=$(grep -m 1 '"split":"test"' "$data/manifest.jsonl")
clip=$data/$(value video "$line")
timed "ask about one clip" limbic infer "$run" --clip "$clip" --transcript "$(value transcript "$line")"
echo "labelled   $(value emotion "$line")"
total=$((SECONDS - built))

if $ablate; then
    for modality in video audio transcript; do
        timed "train on $modality alone" limbic train "$recipe" "name=quickstart-$modality" "inputs=[$modality]"
        timed "evaluate $modality alone" evaluate "quickstart-$modality"
    done
fi

printf '\n================ quickstart: done ================\n\nTest split, never used for a choice:\n'
awk '/^ +accuracy +uar/ || /^(generated text|class head|majority baseline) /' "$scores/$run"

if $ablate; then
    printf '\nTest accuracy, by what the model is given:\n%-24s %14s %10s\n' "" "generated text" "class head"
    for name in "$run" quickstart-video quickstart-audio quickstart-transcript; do
        awk -v name="$name" '/^generated text /{text = $3} /^class head /{head = $3}
            END {printf "%-24s %14s %10s\n", name, text, head}' "$scores/$name"
    done
fi

printf '\nTime (minutes:seconds; what was done already costs next to nothing):\n'
for index in "${!parts[@]}"; do
    printf '  %-26s %7s\n' "${parts[$index]}" "$(clock "${durations[$index]}")"
done
printf '  %-26s %7s\n' "clips to answer, no build" "$(clock "$total")"

cat <<END

Where everything lies:
  clips       $data/manifest.jsonl, $data/clips/
  runs        runs/quickstart-stage1/, runs/$run/ (recipe.yaml, metrics.jsonl, tensorboard/, checkpoints/, final/)
  answers     runs/$run/eval/test/predictions.jsonl
  adapter     $export_dir/llm_adapter/ (PEFT), $export_dir/mm/ (projectors, class head)

Next, ask about a clip of your own, or read README.md on how to train on your own data:
  $binary infer $export_dir --clip YOUR.mp4 --transcript "what is said in it"
END
