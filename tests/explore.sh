#!/bin/sh
# Runs the scenarios in which threads meet: in the broker, in a connection's send queue and in whole
# conversations. loom runs every order with few preemptions, shuttle very many.
# src/os/sync/explore.rs says how this works, and which variables limit it. The build is separate,
# because all locks are those of the checkers in it.
#
#     tests/explore.sh [loom|shuttle]
set -eu
cd "$(dirname "$0")/.."
for checker in ${*:-loom shuttle}; do
    RUSTFLAGS="--cfg explore=\"$checker\"" cargo test --locked --lib --no-default-features \
        --target-dir "${CARGO_TARGET_DIR:-target}/explore-$checker" -- interleavings --nocapture
done
