#!/usr/bin/env bash
# Installs what cargo cannot: the development files of FFmpeg (5 or newer), and clang and pkg-config to bind them.
# Does nothing where they are there already; uses sudo where the user is not root.
set -euo pipefail

packages=(
    clang libclang-dev pkg-config
    libavcodec-dev libavformat-dev libavutil-dev libswscale-dev
    libswresample-dev libavfilter-dev libavdevice-dev
)

say() { echo "setup: $*"; }
fail() {
    echo "setup: $*" >&2
    exit 1
}

# libavcodec 59 is FFmpeg 5.0's.
has_ffmpeg() {
    command -v pkg-config >/dev/null &&
        pkg-config --atleast-version=59 libavcodec 2>/dev/null &&
        pkg-config --exists libavformat libavutil libswscale libswresample libavfilter libavdevice
}

# What bindgen looks for: LIBCLANG_PATH, an installation of LLVM, or the system's library folders.
has_clang() {
    command -v clang >/dev/null &&
        { [ -n "${LIBCLANG_PATH:-}" ] || compgen -G '/usr/lib*/llvm*/lib/libclang*' >/dev/null ||
            compgen -G '/usr/lib*/*/libclang*' >/dev/null || compgen -G '/usr/lib*/libclang*' >/dev/null; }
}

command -v cargo >/dev/null ||
    fail "cargo is not in PATH; install Rust 1.95 or newer, for example with rustup, then run this again"

if has_ffmpeg && has_clang; then
    say "FFmpeg $(pkg-config --modversion libavcodec) (libavcodec), clang and pkg-config are here; nothing to install"
    exit 0
fi

command -v apt-get >/dev/null ||
    fail "this is not a Debian or Ubuntu system: install clang, libclang, pkg-config and the development files of" \
        "FFmpeg 5 or newer with your package manager, then run this again"

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
        fail "neither root nor sudo: ask an administrator for: apt-get install ${packages[*]}"
    as_root=(sudo)
fi

say "installing ${packages[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null

has_ffmpeg || fail "the installed FFmpeg is older than 5, or its development files are still missing; Debian 12 and" \
    "Ubuntu 24.04 have new enough ones"
has_clang || fail "clang or libclang is still missing after the installation; set LIBCLANG_PATH to libclang's folder"
say "done"
