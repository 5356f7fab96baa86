#!/bin/sh
# Runs the scenarios of threads that meet in the broker, in a connection's send queue and in whole conversations, in
# every order there is (loom) and in very many (shuttle): src/os/sync/explore.rs says how, and which
# variables say how far to go. Built apart from everything else, since all locks are the checkers' then.
#
#     tests/explore.sh [loom|shuttle]
set -eu
cd "$(dirname "$0")/.."
for checker in ${*:-loom shuttle}; do
    RUSTFLAGS="--cfg explore=\"$checker\"" cargo test --locked --lib --no-default-features \
        --target-dir "${CARGO_TARGET_DIR:-target}/explore-$checker" -- interleavings --nocapture
done
