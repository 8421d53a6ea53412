#!/usr/bin/env bash
# Writes the root file system of a small base image as a tar: busybox with all its applets.
#
#   scripts/base-image.sh OUT.tar
#
# Needs no registry and no root: busybox is the installed one if that is static, else it is taken from Debian's
# busybox-static package, which is downloaded and unpacked, not installed. The same busybox gives the same bytes.
set -euo pipefail
umask 022

out=${1:?usage: base-image.sh OUT.tar}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

is_static() { [[ -x $1 ]] && ldd "$1" 2>&1 | grep -q 'not a dynamic executable\|statically linked'; }

# Prints the path of a static busybox.
busybox() {
    local installed
    installed=$(command -v busybox || true)
    if is_static "$installed"; then
        echo "$installed"
        return
    fi
    (cd "$work" && download_busybox) >&2
    dpkg-deb -x "$work"/busybox-static_*.deb "$work/package"
    find "$work/package" -path '*/bin/busybox' -type f
}

# With package lists of its own where the system has none, or may not be asked to fetch some.
download_busybox() {
    apt-get download -q busybox-static 2>/dev/null && return
    mkdir -p lists/partial cache
    local own=(-q -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o Debug::NoLocking=1)
    apt-get "${own[@]}" update
    apt-get "${own[@]}" download busybox-static
}

binary=$(busybox)
root=$work/root
mkdir -p "$root"/{bin,dev,etc,proc,root,run,sys,tmp,usr/bin,usr/local/bin,var/tmp}
chmod 700 "$root/root"
chmod 1777 "$root/tmp" "$root/var/tmp"
install -m 755 "$binary" "$root/bin/busybox"
for applet in $("$root/bin/busybox" --list); do
    [[ -e $root/bin/$applet ]] || ln -s busybox "$root/bin/$applet"
done
printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/:/bin/false' >"$root/etc/passwd"
printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' >"$root/etc/group"

mkdir -p "$(dirname "$out")"
tar -C "$root" --sort=name --format=ustar --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/out.tar" .
mv "$work/out.tar" "$out"
