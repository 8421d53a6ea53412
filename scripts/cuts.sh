#!/usr/bin/env bash
# Builds from and to a shared cache while the wire to it breaks, is slow, and the registry is started anew, at as many moments as are
# asked for: each build must be right, and no layer taken by halves.
#
#   scripts/cuts.sh [MOMENTS]
#
# MOMENTS is how many (50). scripts/test.sh tries a few.
set -euo pipefail
cd "$(dirname "$0")/.."
export RBUILD_TEST_REQUIRE_KERNEL=1 RBUILD_TEST_CUTS=${1:-50}
cargo test -p rbuild --locked --test runner -- shared_cache::proof::whatever_breaks --nocapture --test-threads 1
