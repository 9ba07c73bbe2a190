#!/usr/bin/env bash
# Trains on Vulkan and holds the result against the CPU's, where a Vulkan driver is installed; one in software will do
# (Debian and Ubuntu: apt-get install libvulkan1 mesa-vulkan-drivers). Apart from the other tests, because a build with
# the feature `wgpu` takes a quarter of an hour on 2 cores. Build outputs go below CARGO_TARGET_DIR, in wgpu/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

has_driver() {
    local ldconfig
    ldconfig=$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null || true)
    grep -q 'libvulkan\.so\.1' <<<"$ldconfig" &&
        { compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null || compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null ||
            [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ]; }
}

if ! has_driver; then
    echo "test-wgpu: skipped: no Vulkan driver here; libvulkan1 and mesa-vulkan-drivers bring one in software"
    exit 0
fi

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/wgpu"
echo "test-wgpu: cargo test --release --features wgpu --test limbic wgpu, in $CARGO_TARGET_DIR"
LIMBIC_TEST_WGPU=1 cargo test --release --features wgpu --test limbic "$@" -- wgpu --nocapture
