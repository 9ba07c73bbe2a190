#!/usr/bin/env bash
# Builds limbic for NVIDIA GPUs where the LLVM bundle that burn's CUDA backend downloads cannot be had (air-gapped
# clusters, build farms). Kernels are compiled with NVRTC instead, and what is linked in LLVM's place is a small library
# each of whose functions ends the program when called; nothing calls them. Needs cargo's packages (vendored or
# fetched), a C compiler, binutils and xz; no CUDA toolkit and no GPU. Where it runs it needs the NVIDIA driver, and NVRTC
# and the headers of a CUDA toolkit.
#     scripts/build-cuda-offline.sh [CARGO ARGUMENT]...      for example --locked, --offline or -j 4
# Build outputs go to CARGO_TARGET_DIR, by default target/cuda-offline.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target/cuda-offline}"
built=$CARGO_TARGET_DIR/release/limbic
out=$CARGO_TARGET_DIR/limbic-cuda
links=$CARGO_TARGET_DIR/no-llvm
library=liblimbic_no_llvm.so

say() { echo "build-cuda-offline: $*"; }
fail() {
    echo "build-cuda-offline: $*" >&2
    exit 1
}

# Makes the library of the functions whose names are read, a line each: make_library FILE
make_library() {
    {
        printf '#include <stdio.h>\n#include <stdlib.h>\n'
        printf 'static void end(const char *name) {\n'
        printf '    fprintf(stderr, "limbic: %%s of LLVM was called, which this build is without\\n", name);\n    abort();\n}\n'
        sed 's/.*/void &(void) { end("&"); }/'
    } >"$links/no_llvm.c"
    cc -shared -fPIC -O1 -fno-builtin -Wl,-soname,"$library" -o "$1" "$links/no_llvm.c"
}

for tool in cargo cc ldd strip xz; do
    command -v "$tool" >/dev/null || fail "\`$tool\` is not in PATH; install it, for example with apt-get install gcc binutils xz-utils"
done
[ "$(uname -s)" = Linux ] || fail "this is $(uname -s); the linker arguments below are Linux's"

start=$SECONDS
mkdir -p "$links" "$out"

# Linked while still empty, so that the program asks for it by name; filled below, once the names are known.
make_library "$links/$library" </dev/null

say "cargo rustc --release --features cuda-nvrtc, in $CARGO_TARGET_DIR (a quarter of an hour on 2 cores, from nothing)"
# DOCS_RS: burn's build scripts then neither download LLVM nor look for it.
DOCS_RS=1 cargo rustc --release --bin limbic --features cuda-nvrtc "$@" -- \
    -C link-arg=-Wl,--unresolved-symbols=ignore-all \
    -C link-arg=-Wl,--no-as-needed -C link-arg="$links/$library" \
    -C link-arg=-Wl,-rpath,'$ORIGIN'

cp "$built" "$out/limbic"
cp "$links/$library" "$out/$library"

missing=$(ldd -r "$out/limbic" 2>&1 | sed -n 's/^undefined symbol: \([[:alnum:]_]*\).*/\1/p' | sort -u)
[ -n "$missing" ] || fail "the program lacks no function of LLVM, which is not what this script expects: LLVM may be \
installed here, and then cargo build --release --features cuda builds without this script"
foreign=$(grep -v -E '^(LLVM|cubecl_)' <<<"$missing" || true)
[ -z "$foreign" ] || fail "these functions are missing and are not LLVM's, so the program would not run: ${foreign//$'\n'/, }"
make_library "$out/$library" <<<"$missing"
say "$(wc -l <<<"$missing") functions of LLVM are missing and end the program when called"

left=$(ldd -r "$out/limbic" 2>&1 | grep -E 'undefined symbol|not found' || true)
[ -z "$left" ] || fail "the program still lacks: $left"

size() { echo "$(($(stat -c %s "$1") / 1024)) KiB"; }
whole=$(size "$out/limbic")
strip "$out/limbic" "$out/$library"
"$out/limbic" --version >/dev/null || fail "the built program does not start: $out/limbic --version"
tar -C "$CARGO_TARGET_DIR" -cf - limbic-cuda | xz -T0 -c >"$out.tar.xz"

say "built in $((SECONDS - start)) s"
say "  $out/limbic        $whole, $(size "$out/limbic") stripped"
say "  $out/$library      $(size "$out/$library"); belongs beside the program"
say "  $out.tar.xz      $(size "$out.tar.xz"), both"
say "try it with: $out/limbic doctor"
