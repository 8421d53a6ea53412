#!/usr/bin/env bash
# Kills rbuild at every pass of every fail point of the store, and at random moments, and looks at what is left.
#
#   scripts/crash.sh [KILLS]
#
# RBUILD_LAYERS says in which form copies are kept meanwhile: directory, tree or delta. KILLS is how many kills at random moments have to hit a running rbuild (500); it says how many it took. Takes a quarter of an hour or more; scripts/test.sh tries a few of each.
set -euo pipefail
cd "$(dirname "$0")/.."
export RBUILD_TEST_REQUIRE_KERNEL=1 RBUILD_TEST_ALL_KILLS=1 RBUILD_TEST_KILLS=${1:-500}
# Damage is done to files of directories.
skipped=()
[[ ${RBUILD_LAYERS:-} != tree ]] || skipped=(--skip crash::damage)
cargo test -p rbuild --locked --test runner -- crash:: "${skipped[@]}" --nocapture
