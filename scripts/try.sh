#!/usr/bin/env bash
# Builds rbuild, then does with it what it is for: builds the image in testdata/hello and runs it.
#
#   scripts/try.sh
#
# As root or as any user; on a machine without a registry the base image is made on the spot. State goes to
# RBUILD_ROOT, which is target/try here when it is not set, so a second try is a rebuild in which nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
export RBUILD_ROOT=${RBUILD_ROOT:-$(realpath -m "$target")/try}
rbuild=$target/release/rbuild

cargo build --release --locked --bin rbuild

if ! "$rbuild" inspect busybox:latest >/dev/null 2>&1; then
    scripts/base-image.sh "$RBUILD_ROOT.busybox.tar"
    "$rbuild" import -c 'CMD ["sh"]' "$RBUILD_ROOT.busybox.tar" busybox:latest
fi

"$rbuild" build -t hello testdata/hello
"$rbuild" run --rm hello
"$rbuild" history hello
