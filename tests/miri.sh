#!/bin/sh
# Runs under Miri the code that Miri can run: the rules, the lanes and the codecs, which are plain
# data and call nothing outside Rust. The shell around the rules locks with futexes; other tools
# test it. This needs the component miri of a nightly toolchain. Without it, the script prints a
# message that says so and succeeds.
set -eu
cd "$(dirname "$0")/.."
cargo +nightly miri --version >/dev/null 2>&1 || {
    echo "skipped: there is no Miri, so the rules, the lanes and the codecs are NOT run under it"
    exit 0
}
# Tests with random cases run only a few of them, because each takes a thousand times as long here.
# Isolation is disabled because such a test keeps its failed cases in files, which Miri would hide
# from it. The test with the most states is skipped.
export PROPTEST_CASES="${PROPTEST_CASES:-8}"
MIRIFLAGS="-Zmiri-disable-isolation" cargo +nightly miri test --locked --lib --no-default-features \
    --target-dir "${CARGO_TARGET_DIR:-target}/miri" -- broker::rules:: broker::fast_lane:: wire:: \
    --skip three_sessions_and_two_names
