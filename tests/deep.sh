#!/bin/sh
# Runs the tests that show the promises of docs/guarantees.md and take too long for every change.
# Each part is timed, its output is kept in target/deep/, and at the end a summary shows the result
# of each.
#
#     tests/deep.sh [PART...]
#
# FUZZ_SECONDS (60) sets how long each fuzz target runs, LOCKD_PERIODS (180) through how many periods
# of a crontab the hosts go. LOCKD_CLUSTERS (6), LOCKD_CALLS (1000000) and LOCKD_FAIL_OVERS (200) set
# how many clusters take over side by side, and what all of them together must have gone through.
set -u
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
logs=${CARGO_TARGET_DIR:-target}/deep
mkdir -p "$logs"
rm -f "$logs/status"

# The ignored tests of a program are its deep tests. More arguments choose among them.
deep_tests() {
    program=$1
    shift
    "$cargo" test --release --locked --test "$program" -- --ignored --nocapture --test-threads=1 "$@"
}

histories() { deep_tests history --skip deep_upgrades --skip faults::resuming --skip faults::failovers; }
# Two million calls of sessions that resume, planted faults of the server, and the times that it takes.
resuming() { deep_tests history faults::resuming; }
# A million calls across 200 fail-overs of clusters on etcd, planted faults, clocks that differ, and the times
# that it takes.
fail_overs() { deep_tests history faults::failovers; }
# A million calls amid upgrades, and upgrades of up to 5,000 connections with the times that they take.
deep_upgrades() { deep_tests history deep_upgrades && deep_tests upgrade deep_scale; }
cable() { deep_tests cable; }
waiters() { deep_tests cli --skip deep_jobs; }
# Ten minutes of jobs while their server is killed every half minute.
deep_jobs() { deep_tests cli deep_jobs; }
attacks() { deep_tests attacks; }
deep_upgrade_kills() { deep_tests upgrade deep_upgrade_kills; }
# All trials of the conformance kit, and its planted faults, also those in Rust.
conformance() {
    kit="$cargo test --release --locked --test conformance --"
    $kit --deep && $kit --planted --deep
}
interleavings() {
    LOCKD_ITERATIONS=20000 tests/explore.sh shuttle && LOOM_MAX_PREEMPTIONS=2 tests/explore.sh loom
}
sanitizers() { tests/sanitize.sh; }
miri() { tests/miri.sh; }
fuzzing() {
    fuzz/run.sh "${FUZZ_SECONDS:-60}"
    case $? in
    0) ;;
    2) echo "skipped: fuzzing needs the tools named above" ;;
    *) return 1 ;;
    esac
}

run() {
    echo "== $1"
    began=$(date +%s)
    { "$1" 2>&1 && echo passed >"$logs/status" || echo FAILED >"$logs/status"; } | tee "$logs/$1.log"
    ended=$(cat "$logs/status")
    # A part that was skipped because something is missing says so in its last line.
    [ "$ended" = passed ] && tail -n 1 "$logs/$1.log" | grep -q '^skipped: ' && ended=skipped
    summary="$summary$(printf '%-18s %7d s  %s' "$1" $(($(date +%s) - began)) "$ended")
"
    [ "$ended" != FAILED ] || failed=yes
}

summary=
failed=
[ $# -gt 0 ] || set -- histories resuming fail_overs deep_upgrades cable conformance waiters deep_jobs attacks deep_upgrade_kills interleavings sanitizers miri fuzzing
for part; do run "$part"; done
printf '\n%s' "$summary"
[ -z "$failed" ]
