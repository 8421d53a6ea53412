#!/usr/bin/env bash
# Fuzzes what reads strangers' input: every target, or those that are named, for a time each.
#
#   scripts/fuzz.sh [-t SECONDS] [TARGET...]
#
# Needs a nightly toolchain and cargo-fuzz. Begins with the seeds in testdata/fuzz; what it finds to be interesting stays in
# fuzz/corpus, what crashes in fuzz/artifacts. Exits with the code of the first target that crashed.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds=3600
while getopts t: option; do
    case $option in
        t) seconds=$OPTARG ;;
        *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(cd fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')

# The database's C code defines names twice that the sanitizer takes for a mistake.
export ASAN_OPTIONS=detect_odr_violation=0
for target in "${targets[@]}"; do
    printf '\n== %s, %s seconds\n' "$target" "$seconds"
    mkdir -p "corpus/$target"
    cargo +nightly fuzz run "$target" "corpus/$target" "../testdata/fuzz/$target" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1
done
