#!/usr/bin/env bash
# Runs all tests: as the user who calls it and, when that is root, once more as an ordinary user, because rootless
# is half of what rbuild promises.
#
#   scripts/test.sh
#
# As root it installs what the tests need from Debian's packages and npm's, and makes the user `rbuild-test` with ranges of
# subordinate ids. As another user it says what is missing. Ends with one line of totals.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
test_user=rbuild-test
# A user without ranges of ids, and what has to hold for one as well: docs/isolation.md says what does not.
single_user=rbuild-single
single_tests=(conformance:: archives:: disk_commands:: images_command:: build_command::caching build_command::contexts
    build_command::deltas::one build_command::deltas::what build_command::platforms build_command::squash
    build_command::storage containers_command::lost containers_command::networks escape::paths escape::shown)
# What shows in layers, whatever their form.
tree_tests=(conformance:: crash:: archives:: build_command::caching build_command::contexts build_command::squash
    build_command::storage build_command::trees registry::)
# What builds more than once: what differs is told from the time before. Each case of conformance is built with other files before.
delta_tests=(conformance:: crash:: build_command::caching build_command::contexts build_command::deltas build_command::squash
    build_command::storage)
directory_tests=(conformance:: crash::)

export RBUILD_TEST_REQUIRE_KERNEL=1
export INSTA_UPDATE=no
# A user's own store must not be what the tests work on.
unset RBUILD_ROOT

say() { printf '\n== %s\n' "$*"; }

# What the tests call that rbuild itself does not need, and the package that it comes from.
install_needs() {
    local needs=(busybox:busybox-static debootstrap:debootstrap docker-registry:docker-registry skopeo:skopeo
        umoci:umoci podman:podman git:git newuidmap:uidmap ip:iproute2 nft:nftables pasta:passt
        slirp4netns:slirp4netns fsck.erofs:erofs-utils openssl:openssl curl:curl bc:bc node:nodejs npm:npm)
    local missing=() need
    for need in "${needs[@]}"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)); then
        echo "test.sh: the tests need: apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 3
    fi
    say "installing ${missing[*]}"
    apt-get update -qq || true
    without_services apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# What the tests call that Debian has no package of: Microsoft's stand-in for Azure's storage, and GitHub's client of its cache service.
install_node_needs() {
    local needs=(azurite@3.37.0 @actions/cache@6.3.0) missing=() need root
    root=$(npm root --global 2>/dev/null)
    for need in "${needs[@]}"; do [[ -d $root/${need%@*} ]] || missing+=("$need"); done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)); then
        echo "test.sh: the tests need: npm install --global ${missing[*]}" >&2
        exit 3
    fi
    say "installing ${missing[*]}"
    npm install --global --no-audit --no-fund --silent "${missing[@]}"
}

# Runs a command while packages may start no service: a test's registry is not to listen for ever after.
without_services() (
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
    fi
    DEBIAN_FRONTEND=noninteractive "$@"
)

# An ordinary user with ranges of subordinate ids, for the rootless run.
make_test_user() {
    if ! id "$test_user" >/dev/null 2>&1; then
        say "making the user $test_user for the rootless run"
        useradd --create-home --shell /bin/sh "$test_user"
    fi
    grep -q "^$test_user:" /etc/subuid 2>/dev/null || usermod --add-subuids 1000000-1065535 "$test_user"
    grep -q "^$test_user:" /etc/subgid 2>/dev/null || usermod --add-subgids 1000000-1065535 "$test_user"
    if ! id "$single_user" >/dev/null 2>&1; then
        useradd --create-home --shell /bin/sh "$single_user"
    fi
    sed -i "/^$single_user:/d" /etc/subuid /etc/subgid
}

# Runs all tests as the calling user. nextest gives each test a process of its own; cargo's harness does without.
run_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --workspace --locked --profile ci
    else
        cargo test --workspace --locked --bins --lib --tests --no-fail-fast
    fi
}

# Runs some of them with all copied directories kept in one form, however small.
#   run_tests_in_form FORM FILTER...
run_tests_in_form() {
    local -x RBUILD_LAYERS=$1
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --package rbuild --test runner --locked --profile ci "${@:2}"
    else
        cargo test --package rbuild --test runner --locked --no-fail-fast -- "${@:2}"
    fi
}

# Prints `package-directory<tab>binary` for each compiled test binary that means something without root. The unit tests of the
# store and of file operations make owners, devices and trusted attributes, which is root's to do; what they do in a user
# namespace is tested through the command. The kernel tier becomes those users by itself, in root's run.
test_binaries() {
    cargo test --workspace --locked --no-run --bins --lib --tests --message-format=json 2>/dev/null | python3 -c '
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("reason") != "compiler-artifact" or message["target"]["name"] in ("rbuild_cache", "rbuild_solver", "kernel"):
        continue
    if message.get("executable") and message["profile"]["test"]:
        print(os.path.dirname(message["manifest_path"]), message["executable"], sep="\t")'
}

# Runs the same binaries as an ordinary user, from a mount namespace in which that user can reach them wherever the
# clone is. What looks at the sources and not at the program (`tidy`) needs no second look.
#   run_tests_rootless USER [FILTER]...
run_tests_rootless() {
    local state status=0 user=$1
    state=$(mktemp -d /var/tmp/rbuild-rootless.XXXXXX)
    mkdir "$state"/{home,tmp,run}
    chmod 700 "$state/run"
    chown -R "$user:" "$state"
    test_binaries >"$state/binaries"
    unshare --mount --propagation private scripts/as-test-user.sh "$user" "$repository" "$state" "${@:2}" || status=$?
    rm -rf "$state"
    return "$status"
}

# Adds up what the runners said: `passed failed`.
totals() {
    python3 - "$1" <<'P'
import re, sys
text = re.sub(r"\x1b\[[0-9;]*m", "", open(sys.argv[1], errors="replace").read())
passed = failed = 0
for line in text.splitlines():
    if re.match(r"test result: |first try: |\s*Summary \[", line):
        passed += sum(map(int, re.findall(r"(\d+) passed", line)))
    if re.match(r"test result: |\s*Summary \[", line):
        failed += sum(map(int, re.findall(r"(\d+) (?:failed|timed out|exec failed)", line)))
print(passed, failed)
P
}

install_needs
install_node_needs
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0

say "tests as $(id -un)"
run_tests 2>&1 | tee -a "$log" || status=1

say "documentation tests"
cargo test --workspace --locked --doc 2>&1 | tee -a "$log" || status=1

if ((EUID == 0)); then
    say "several machines with one cache"
    scripts/machines.sh --check target/debug/rbuild 2>&1 | tee -a "$log" || status=1
    say "tests with layers as trees"
    run_tests_in_form tree "${tree_tests[@]}" 2>&1 | tee -a "$log" || status=1
    say "tests with layers as deltas"
    run_tests_in_form delta "${delta_tests[@]}" 2>&1 | tee -a "$log" || status=1
    say "tests with layers as directories"
    run_tests_in_form directory "${directory_tests[@]}" 2>&1 | tee -a "$log" || status=1
    make_test_user
    say "tests as $test_user"
    run_tests_rootless "$test_user" 2>&1 | tee -a "$log" || status=1
    say "tests as $test_user, with layers as deltas"
    RBUILD_LAYERS=delta run_tests_rootless "$test_user" "${delta_tests[@]}" 2>&1 | tee -a "$log" || status=1
    say "tests as $single_user, who has one single id"
    run_tests_rootless "$single_user" "${single_tests[@]}" 2>&1 | tee -a "$log" || status=1
fi

read -r passed failed <<<"$(totals "$log")"
((status == 0 || failed > 0)) || echo "test.sh: a runner failed, see above" >&2
printf '\n%s passed, %s failed\n' "$passed" "$failed"
((status == 0 && failed == 0 && passed > 0))
