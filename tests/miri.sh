#!/bin/sh
# Runs under Miri what can be: the rules, the lanes and the codecs, all of them plain data that calls nothing
# outside Rust. The shell around them locks with futexes, and its tests are for other tools. That takes the
# component miri of a nightly tool-chain; without it this says so, loudly, and all is well.
set -eu
cd "$(dirname "$0")/.."
cargo +nightly miri --version >/dev/null 2>&1 || {
    echo "skipped: there is no Miri, so the rules, the lanes and the codecs are NOT run under it"
    exit 0
}
# What tries cases at random tries a few: each takes a thousand times as long. The files in which such a test
# keeps what failed are outside of what Miri lets it see by itself. What goes through the most states is left out.
export PROPTEST_CASES="${PROPTEST_CASES:-8}"
MIRIFLAGS="-Zmiri-disable-isolation" cargo +nightly miri test --locked --lib --no-default-features \
    --target-dir "${CARGO_TARGET_DIR:-target}/miri" -- broker::rules:: broker::fast_lane:: wire:: \
    --skip three_sessions_and_two_names
