#!/usr/bin/env bash
# Several machines that share a cache: network namespaces with stores of their own, and a registry and an object store between them.
# Machine A builds cold and exports; B builds the same, C the same and only pushes it, D a changed Dockerfile. Prints for each what ran again, what
# went over its wire, and how long it took. docs/shared-cache.md has the table.
#
#   scripts/machines.sh [--check] [RBUILD]
#
# With --check it is a test, of small layers in the registry alone: fails where a step ran again, or a push moved layers.
# Needs root, and what scripts/test.sh installs. RBUILD is the program (target/release/rbuild).
set -euo pipefail
cd "$(dirname "$0")/.."
check=false size=10000000 pause=1 machines=(1 2 3 4 5 6 7 8 9)
if [[ ${1:-} == --check ]]; then
    check=true size=200000 pause=0 machines=(1 2 3 4 5)
    shift
fi
rbuild=$(realpath "${1:-target/release/rbuild}")
work=$(mktemp -d /var/tmp/rbuild-machines.XXXXXX)
hub=rbuild-hub registry=10.99.0.1:5001 store=10.99.0.1:5002
servers=()

clean_up() {
    for pid in "${servers[@]}"; do kill "$pid" 2>/dev/null || true; done
    for machine in "${machines[@]}"; do ip netns delete "rbuild-m$machine" 2>/dev/null || true; done
    ip netns delete $hub 2>/dev/null || true
    chmod -R u+rwx "$work" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT

# The hub is a namespace as well: nothing of this is on the machine's own network.
ip netns add $hub
ip -n $hub link add hub type bridge
ip -n $hub address add 10.99.0.1/24 dev hub
ip -n $hub link set hub up
ip -n $hub link set lo up
for machine in "${machines[@]}"; do
    ip netns add "rbuild-m$machine"
    ip -n "rbuild-m$machine" link add wire type veth peer name "m$machine" netns $hub
    ip -n $hub link set "m$machine" master hub up
    ip -n "rbuild-m$machine" address add "10.99.0.1$machine/24" dev wire
    ip -n "rbuild-m$machine" link set wire up
    ip -n "rbuild-m$machine" link set lo up
done

mkdir -p "$work"/{registry,config/rbuild,context}
printf 'version: 0.1\n' >"$work/registry.yml"
printf '[registry."%s"]\nplain-http = true\n' $registry >"$work/config/rbuild/rbuild.toml"
REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=$work/registry REGISTRY_HTTP_ADDR=$registry REGISTRY_LOG_LEVEL=error \
    ip netns exec $hub docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
servers+=($!)
if $check; then
    echo none >"$work/s3.word"
else
    cargo build -q -p rbuild-registry --features testing --example s3_server
    ip netns exec $hub target/debug/examples/s3_server $store "$work/s3" >"$work/s3.word" &
    servers+=($!)
fi
until [[ -s $work/s3.word ]] && ip netns exec $hub curl -fs http://$registry/v2/ >/dev/null; do sleep 0.1; done

# on MACHINE ARGUMENTS...: rbuild on a machine.
on() {
    XDG_CONFIG_HOME=$work/config ip netns exec "rbuild-m$1" "$rbuild" --root "$work/store-$1" "${@:2}"
}
moved() { # bytes over a machine's wire so far
    ip netns exec $hub cat "/sys/class/net/m$1/statistics/rx_bytes" "/sys/class/net/m$1/statistics/tx_bytes" | paste -sd+ | bc
}

dockerfile() { # CHANGE
    printf 'FROM %s/base\n' $registry
    for step in 1 2 3 4 5 6; do printf 'RUN head -c %s /dev/urandom >/data-%s; sleep %s\n' $size $step $pause; done
    printf 'COPY file /file\nRUN cat /file /data-* | sha256sum >/sum; sleep %s\nRUN echo %s >/last\n' $pause "$1"
}
dockerfile one >"$work/context/Dockerfile"
dockerfile two >"$work/changed"
echo file >"$work/context/file"
scripts/base-image.sh "$work/base.tar" >/dev/null
on 1 import "$work/base.tar" $registry/base >/dev/null
on 1 push -q $registry/base

# row NAME MACHINE STEPS BYTES ARGUMENTS...: builds, and prints a row; with --check, exactly so many steps may have run, and at most so many
# bytes have moved.
row() {
    local before start end
    before=$(moved "$2") start=$(date +%s.%N)
    on "$2" build --progress plain --network none "${@:5}" "$work/context" 2>"$work/log" || { cat "$work/log" >&2; return 1; }
    end=$(date +%s.%N)
    local steps
    steps=$(awk '/^#[0-9]+ \[/ { name[$1] = $0 } /^#[0-9]+ DONE/ && name[$1] ~ /(RUN|COPY) / { n++ } END { print n + 0 }' "$work/log")
    local bytes=$(($(moved "$2") - before))
    printf '| %s | %s | %s | %.1f |\n' "$1" "$steps" "$(numfmt --to=si $bytes)" "$(bc <<<"$end - $start")"
    if $check && ((steps != $3 || bytes > $4)); then
        echo "machines.sh: $1: $steps steps and $bytes bytes (expected $3, and at most $4)" >&2
        cat "$work/log" >&2
        return 1
    fi
}

table() { # CACHE FIRST_MACHINE
    printf '| | steps that ran | bytes over its wire | seconds |\n|---|---|---|---|\n'
    local whole=$((8 * size + 5000000))
    row 'A: cold, and exports' "$2" 9 $((2 * whole)) -t "$registry/app" --push --cache-to "$1,mode=max"
    row 'B: the same' "$(($2 + 1))" 0 $whole -t app --cache-from "$1"
    row 'C: the same, only pushed' "$(($2 + 2))" 0 $((size - 1)) -t "$registry/app" --push --cache-from "$1"
    cp "$work/changed" "$work/context/Dockerfile"
    row 'D: another last step' "$(($2 + 3))" 1 $whole -t app --cache-from "$1"
    dockerfile one >"$work/context/Dockerfile"
}
echo "registry:"
table "type=registry,ref=$registry/cache" 2
if ! $check; then
    echo "object store:"
    table "$(cat "$work/s3.word")" 6
fi
