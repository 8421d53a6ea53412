#!/usr/bin/env bash
# Builds and runs the programs in testdata/projects, and loads the images in the other engines that are there.
#
#   scripts/projects.sh RBUILD [PROJECT...]
#
# Needs the network, and a Debian base image: `debian:bookworm-slim` from the store, else made by debian-base.sh (root).
# State goes to RBUILD_ROOT, or to rbuild's own default.
set -euo pipefail
rbuild=$(realpath "${1:?usage: projects.sh RBUILD [PROJECT...]}")
shift
cd "$(dirname "$0")/.."
base=debian:bookworm-slim
cache=$(realpath -m "${CARGO_TARGET_DIR:-target}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Runs a command where only cgroup v2 is seen: crun refuses a hybrid of both.
plain_cgroups() {
    unshare --mount sh -c 'umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec "$@"' - "$@"
}

say() { printf '\n== %s\n' "$*"; }

# What the machine's own apt and pip are told: settings, certificates. Built into no image.
host_settings() {
    mkdir -p "$1"
    local bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
    : >"$1/apt.conf"
    printf '[global]\n' >"$1/pip.conf"
    if [[ -r $bundle ]]; then
        cp "$bundle" "$1/ca.crt"
        echo 'cert = /host/ca.crt' >>"$1/pip.conf"
        echo 'Acquire::https::CAInfo "/host/ca.crt";' >>"$1/apt.conf"
    fi
    local setting
    for setting in index-url extra-index-url trusted-host proxy timeout; do
        local value
        value=$(python3 -m pip config get "global.$setting" 2>/dev/null || true)
        [[ -z $value ]] || echo "$setting = $value" >>"$1/pip.conf"
    done
    # The rest of the machine's apt settings is about its own packages.
    { apt-config dump 2>/dev/null || true; } | grep -E '^Acquire::(https?::Proxy|Check-|Retries|ForceIPv4)' |
        grep -v ' "";$' >>"$1/apt.conf" || true
}

import_base() {
    "$rbuild" inspect "$base" >/dev/null 2>&1 && return
    local tar=$cache/debian-bookworm.tar
    if [[ ! -e $tar ]]; then
        say "making $base with debootstrap"
        scripts/debian-base.sh "$tar"
    fi
    "$rbuild" import -c 'CMD ["bash"]' "$tar" "$base"
}

# project, what its output must hold
try() {
    local project=$1 expected=$2 context=$work/$1 output
    say "$project: build"
    cp -r "testdata/projects/$project" "$context"
    host_settings "$context/host"
    "$rbuild" build --network host --progress plain --build-arg BASE="$base" -t "projects/$project" "$context"

    say "$project: run"
    output=$("$rbuild" run --rm --network none "projects/$project")
    echo "$output"
    grep -q "$expected" <<<"$output"

    say "$project: a second build changes nothing"
    "$rbuild" build --network host --progress plain --build-arg BASE="$base" -t "projects/$project" "$context" 2>&1 |
        tee "$work/second"
    if grep -qE '^#[0-9]+ [0-9]+\.[0-9]+ ' "$work/second"; then
        echo "projects.sh: a step of $project ran again" >&2
        return 1
    fi

    "$rbuild" save --format oci-archive -o "$work/$project.oci" "projects/$project"
    other_engines "$project" "$expected"
}

# The image must mean to others what it means to rbuild.
other_engines() {
    local project=$1 expected=$2 archive=$work/$1.oci
    if command -v skopeo >/dev/null; then
        say "$project: skopeo"
        skopeo inspect --config "oci-archive:$archive" >/dev/null
        skopeo copy --quiet "oci-archive:$archive" "oci:$work/$project.layout:latest"
    fi
    if command -v umoci >/dev/null && [[ -d $work/$project.layout ]]; then
        say "$project: umoci"
        local rootless=()
        ((EUID == 0)) || rootless=(--rootless)
        umoci unpack "${rootless[@]}" --image "$work/$project.layout:latest" "$work/$project.bundle"
        ls "$work/$project.bundle/rootfs" >/dev/null
    fi
    if command -v podman >/dev/null; then
        say "$project: podman"
        # vfs leaves no mount behind; low limits, because raising them may be forbidden.
        echo '[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]' >"$work/containers.conf"
        local podman=(podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver vfs) output id
        id=$("${podman[@]}" pull -q "oci-archive:$archive")
        output=$(CONTAINERS_CONF=$work/containers.conf plain_cgroups "${podman[@]}" run --rm --network host --cgroups disabled "$id")
        echo "$output"
        grep -q "$expected" <<<"$output"
    fi
}

import_base
projects=("$@")
((${#projects[@]})) || projects=(c-lua py-wheel)
for project in "${projects[@]}"; do
    case $project in
        c-lua) try c-lua '^Lua 5.4: 25 primes up to 100$' ;;
        py-wheel) try py-wheel '^user *app$' ;;
        *) echo "projects.sh: no project $project" >&2; exit 2 ;;
    esac
done
say "${#projects[@]} projects built, run and read by others"
