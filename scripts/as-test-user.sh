#!/usr/bin/env bash
# Runs compiled test binaries as an ordinary user. A part of test.sh, which calls it as root in a mount namespace of
# its own.
#
#   as-test-user.sh USER REPOSITORY STATE [FILTER]...
#
# STATE/binaries lists `package-directory<tab>binary`; STATE/{home,tmp,run} are the user's. With filters only the tests run whose names
# have one of them. RBUILD_LAYERS is passed on.
set -euo pipefail
user=$1 repository=$2 state=$3 filters=("${@:4}")

as_user() {
    setpriv --reuid="$user" --regid="$user" --init-groups --inh-caps=-all env -i PATH="$PATH" HOME="$state/home" \
        USER="$user" TMPDIR="$state/tmp" XDG_RUNTIME_DIR="$state/run" RUST_BACKTRACE=1 \
        RBUILD_TEST_REQUIRE_KERNEL=1 INSTA_UPDATE=no INSTA_WORKSPACE_ROOT="$repository" \
        ${RBUILD_LAYERS:+RBUILD_LAYERS="$RBUILD_LAYERS"} "$@"
}

# Where an ancestor of the repository is closed to the user (a clone in root's home), shows the user nothing of that
# ancestor but the repository.
expose_repository() {
    local ancestor="" name names shelter
    IFS=/ read -ra names <<<"${repository#/}"
    for name in "${names[@]}"; do
        ancestor=$ancestor/$name
        as_user test -x "$ancestor" && continue
        shelter=$(mktemp -d)
        mount --bind "$repository" "$shelter"
        mount -t tmpfs -o mode=755 tmpfs "$ancestor"
        mkdir -p "$repository"
        mount --bind "$shelter" "$repository"
        return
    done
}

# The programs that connect a user's network namespace need this device, which some machines keep for root. The user gets one in
# this mount namespace only.
open_tun() {
    [[ -c /dev/net/tun ]] || return 0
    as_user test -w /dev/net/tun && return
    local directory
    directory=$(mktemp -d)
    mount -t tmpfs -o mode=755 tmpfs "$directory"
    mknod -m 666 "$directory/tun" c 10 200
    mount --bind "$directory/tun" /dev/net/tun
}

# Runs a test binary. What failed is run once more, alone, as nextest does it for root: what passes then is said to be flaky.
run_binary() {
    local log=$state/log failed
    as_user "$binary" --quiet --skip tidy:: "${filters[@]}" </dev/null >"$log" 2>&1 && { cat "$log"; return; }
    sed 's/^test result: FAILED\./first try:/' "$log"
    mapfile -t failed < <(sed -n '/^failures:$/,/^test result:/s/^    \([a-z0-9_:]*\)$/\1/p' "$log" | sort -u)
    ((${#failed[@]})) || return 1
    as_user "$binary" --quiet --exact --test-threads 1 "${failed[@]}" </dev/null || return 1
    printf 'FLAKY %s\n' "${failed[@]}"
}

expose_repository
open_tun
status=0
while IFS=$'\t' read -r package binary; do
    if ! as_user test -x "$binary"; then
        echo "as-test-user.sh: $user cannot reach $binary: keep CARGO_TARGET_DIR inside the repository" >&2
        exit 1
    fi
    echo "-- ${binary##*/}"
    (cd "$package" && run_binary) || status=1
done <"$state/binaries"
exit "$status"
