#!/usr/bin/env bash
# Starts and removes many containers, and counts what is left: mounts, processes, descriptors, control groups, interfaces,
# tables of the packet filter, rows, files.
#
#   scripts/soak.sh [CYCLES] [TOGETHER]
#
# CYCLES is how many lives one after the other (10000), TOGETHER how many run at once (100). What is this run's own must be the same
# before and after; what the machine shares is printed. scripts/test.sh tries 500 and 8.
set -euo pipefail
cd "$(dirname "$0")/.."
export RBUILD_TEST_REQUIRE_KERNEL=1 RBUILD_TEST_CYCLES=${1:-10000} RBUILD_TEST_TOGETHER=${2:-100}
cargo test -p rbuild --locked --test runner -- containers_command::soak --nocapture --test-threads 1
