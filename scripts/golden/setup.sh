#!/usr/bin/env bash
# Makes the Python environment of the scripts in this folder, outside the repository, and prints its interpreter.
# LIMBIC_GOLDEN_VENV names another place for it. Needs Python 3.10 or later with venv, and a few GB for PyTorch.
set -euo pipefail

venv="${LIMBIC_GOLDEN_VENV:-$HOME/.cache/limbic-golden}"
requirements="$(dirname "${BASH_SOURCE[0]}")/requirements.txt"
stamp="$venv/requirements.txt"

if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv" >&2
fi
# Installed once for these versions: the copy is written last.
if ! cmp --silent "$requirements" "$stamp"; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" >&2
    cp "$requirements" "$stamp"
fi
echo "$venv/bin/python"
