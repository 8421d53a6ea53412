#!/usr/bin/env bash
# Builds the cases of testdata/conformance with rbuild and with BuildKit, and prints how they compare.
#
#   RBUILD_CONFORMANCE_DOCKER=docker scripts/conformance.sh
#
# RBUILD_CONFORMANCE_DOCKER is what a shell is to call for `docker`. The engine needs buildx, the containerd image store and `xz`, and
# must see the directories in which tests work (TMPDIR). Images named test/... are loaded into it. Without it, rbuild is compared with
# what is recorded. RBUILD_CONFORMANCE_CASE selects cases by a part of their names; RBUILD_CONFORMANCE_UPDATE=1 records.
set -euo pipefail
cd "$(dirname "$0")/.."
export RBUILD_TEST_REQUIRE_KERNEL=1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test -p rbuild --locked --test runner -- conformance:: --nocapture --test-threads "$(nproc)" 2>&1 | tee "$log" || status=$?
awk '/^conformance: / { cases += $3; equal += $5; differ += $8; newer += $12; failed += $16 }
    END { printf "\n%d cases: %d as BuildKit, %d meant to differ, %d newer than it, %d failed\n", cases, equal, differ, newer, failed }' "$log"
exit "$status"
