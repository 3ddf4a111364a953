#!/bin/sh
# Compiles dstack-admission into a static executable and lays out OUT/root, the root file system of the small
# image, and OUT/state, what belongs to its user. The Dockerfile and the tests of the images both run this.
#
#   deploy/compile.sh ARCH OUT     ARCH as Docker writes it, amd64 or arm64
#
# CARGO_TARGET_DIR (target) is where Cargo works, CARGO_FEATURES what is built in, such as `otlp`. cargo-cyclonedx has to be
# on the path; it writes the bill of materials. Compiling for another architecture needs its cross compiler.
set -eu
cd "$(dirname "$0")/.."
arch=$1
out=$2
work=${CARGO_TARGET_DIR:-target}

case $arch in
    amd64) machine=x86_64 ;;
    arm64) machine=aarch64 ;;
    *)
        echo "compile.sh: $arch is neither amd64 nor arm64" >&2
        exit 2
        ;;
esac
triple=$machine-unknown-linux-gnu
if [ "$(uname -m)" != "$machine" ]; then
    export "CARGO_TARGET_$(echo "$triple" | tr 'a-z-' 'A-Z_')_LINKER=$machine-linux-gnu-gcc"
    export "CC_$(echo "$triple" | tr - _)=$machine-linux-gnu-gcc"
fi

# The target is named even where it is the machine's own: without it the flag would reach procedural macros,
# which cannot be static.
env CARGO_PROFILE_RELEASE_STRIP=symbols RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --release --target "$triple" --target-dir "$work" --bin dstack-admission \
    ${CARGO_FEATURES:+--features "$CARGO_FEATURES"}

state=$out/state
out=$out/root
mkdir -p "$out/usr/bin" "$out/etc/dstack-admission" "$out/usr/share/doc/dstack-admission" \
    "$out/tmp" "$out/var/lib" "$state/dstack-admission"
chmod 1777 "$out/tmp"
install -m 755 "$work/$triple/release/dstack-admission" "$out/usr/bin/dstack-admission"
install -m 644 src/config/default.yaml "$out/etc/dstack-admission/admission.yaml"
install -m 644 LICENSE "$out/usr/share/doc/dstack-admission/LICENSE"
echo 'nonroot:x:65532:65532:nonroot:/var/lib/dstack-admission:/sbin/nologin' >"$out/etc/passwd"
echo 'nonroot:x:65532:' >"$out/etc/group"

# Scanners look for *.cdx.json in an image. What is only needed to build and test is not in it.
cargo cyclonedx --quiet --format json --spec-version 1.5 --all --target "$triple" --no-build-deps \
    ${CARGO_FEATURES:+--features "$CARGO_FEATURES"} \
    --override-filename dstack-admission.cdx
mv dstack-admission.cdx.json "$out/usr/share/doc/dstack-admission/"
