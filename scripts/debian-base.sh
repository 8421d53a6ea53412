#!/usr/bin/env bash
# Writes the root file system of a minimal Debian as a tar, for tests that install packages in a build.
#
#   scripts/debian-base.sh OUT.tar [SUITE]
#
# Needs root and debootstrap. MIRROR says where from, when not from Debian's own.
set -euo pipefail
umask 022

out=${1:?usage: debian-base.sh OUT.tar [SUITE]}
suite=${2:-bookworm}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

((EUID == 0)) || { echo "debian-base.sh: debootstrap needs root" >&2; exit 3; }
if ! debootstrap --variant=minbase "$suite" "$work/root" ${MIRROR:+"$MIRROR"} >"$work/log" 2>&1; then
    tail -n 20 "$work/log" >&2
    exit 1
fi
mkdir -p "$(dirname "$out")"
tar -C "$work/root" --sort=name --numeric-owner --xattrs --one-file-system \
    --exclude='./var/cache/apt/archives/*.deb' --exclude='./var/lib/apt/lists/*' --exclude='./dev/*' \
    -cf "$work/out.tar" .
mv "$work/out.tar" "$out"
