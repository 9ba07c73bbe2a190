#!/usr/bin/env bash
# Builds limbic for NVIDIA GPUs where the LLVM bundle that burn's CUDA backend downloads cannot be had (air-gapped
# clusters, build farms). Kernels are compiled with NVRTC instead, and what is linked in LLVM's place is a small library
# each of whose functions ends the program when called; nothing calls them. Needs cargo's packages (vendored or
# fetched), a C compiler, binutils and xz; no CUDA toolkit and no GPU. Where it runs it needs the NVIDIA driver, and NVRTC
# and the headers of a CUDA toolkit.
#     scripts/build-cuda-offline.sh [CARGO ARGUMENT]...      for example --locked, --offline or -j 4
# Build outputs go to CARGO_TARGET_DIR, by default target/cuda-offline.
#
# The linker must keep a program's unresolved functions among its dynamic symbols. LLD does, with which Rust links by
# default on x86-64 Linux since 1.90; GNU ld puts address 0 in their place. A tiny program is linked first to see.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target/cuda-offline}"
out=$CARGO_TARGET_DIR/limbic-cuda
links=$CARGO_TARGET_DIR/no-llvm
library=liblimbic_no_llvm.so
link_arguments=(
    -C link-arg=-Wl,--unresolved-symbols=ignore-all
    -C link-arg=-Wl,--no-as-needed -C "link-arg=$links/$library"
    -C 'link-arg=-Wl,-rpath,$ORIGIN'
)

say() { echo "build-cuda-offline: $*"; }
fail() {
    echo "build-cuda-offline: $*" >&2
    exit 1
}

# Builds with cargo and prints where the program is, wherever arguments and configuration put it: build ARGUMENT...
build() {
    cargo rustc --release --message-format json-render-diagnostics "$@" -- "${link_arguments[@]}" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
}

# The functions that a program lacks, a line each: missing_in PROGRAM
missing_in() {
    local told
    told=$(ldd -r "$1" 2>&1) || fail "\`ldd -r $1\` failed: $told"
    ! grep 'not found' <<<"$told" >&2 || fail "$1 lacks these libraries"
    sed -n 's/^undefined symbol: \([[:alnum:]_]*\).*/\1/p' <<<"$told" | sort -u
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

for tool in cargo rustc cc ldd strip xz; do
    command -v "$tool" >/dev/null || fail "\`$tool\` is not in PATH; install it, for example with apt-get install gcc binutils xz-utils"
done
[ "$(uname -s)" = Linux ] || fail "this is $(uname -s); the linker arguments below are Linux's"

# What is built is held against this machine's libraries.
host=$(rustc -vV | sed -n 's/^host: //p')
targets=("${CARGO_BUILD_TARGET:-$host}")
for argument in "$@"; do
    case "${previous:-}" in --target) targets+=("$argument") ;; esac
    case "$argument" in --target=*) targets+=("${argument#--target=}") ;; esac
    previous=$argument
done
for target in "${targets[@]}"; do
    [ "$target" = "$host" ] || fail "target $target (of --target or CARGO_BUILD_TARGET), but this machine is $host; \
build on a machine of that kind"
done

start=$SECONDS
mkdir -p "$links/probe" "$out"

# Linked while still empty, so that the program asks for it by name; filled below, once the names are known.
make_library "$links/$library" </dev/null

cat >"$links/probe/Cargo.toml" <<'END'
[package]
name = "probe"
edition = "2024"
[[bin]]
name = "probe"
path = "probe.rs"
[workspace]
END
cat >"$links/probe/probe.rs" <<'END'
unsafe extern "C" {
    fn LLVMProbe();
}
fn main() {
    unsafe { LLVMProbe() }
}
END
needs="wanted is a linker that keeps unresolved functions for the dynamic loader, as LLD does: Rust's own (the default on \
x86-64 Linux since 1.90, unless RUSTFLAGS or a configuration of cargo names another), or that of a package lld with \
RUSTFLAGS='-C link-arg=-fuse-ld=lld'"
probe=$(build --manifest-path "$links/probe/Cargo.toml" --offline) || fail "a tiny program could not be linked; $needs"
cp "$probe" "$links/linked"
kept=$(missing_in "$links/linked")
[ "$kept" = LLVMProbe ] || fail "the linker dropped an unresolved function; $needs"

say "cargo rustc --release --features cuda-nvrtc, in $CARGO_TARGET_DIR (a quarter of an hour on 2 cores, from nothing)"
# DOCS_RS: burn's build scripts then neither download LLVM nor look for it.
built=$(DOCS_RS=1 build --bin limbic --features cuda-nvrtc "$@")
[ -n "$built" ] || fail "cargo names no program that it built"
cp "$built" "$out/limbic"
cp "$links/$library" "$out/$library"

missing=$(missing_in "$out/limbic")
[ -n "$missing" ] || fail "the program lacks no function of LLVM, which is not what this script expects: LLVM may be \
installed here, and then cargo build --release --features cuda builds without this script"
foreign=$(sed -E '/^(LLVM|cubecl_)/d' <<<"$missing")
[ -z "$foreign" ] || fail "these functions are missing and are not LLVM's, so the program would not run: ${foreign//$'\n'/, }"
make_library "$out/$library" <<<"$missing"
say "$(wc -l <<<"$missing") functions of LLVM are missing and end the program when called"

left=$(missing_in "$out/limbic")
[ -z "$left" ] || fail "the program still lacks: ${left//$'\n'/, }"

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
