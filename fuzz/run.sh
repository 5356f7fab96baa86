#!/bin/sh
# Runs every fuzz target for SECONDS, one after the other, and prints for each: inputs executed, inputs per
# second, edges of the code reached, inputs in the corpus, new crashes. Exits with status 1 if a target
# crashed, 2 if it cannot run. Installs nothing.
#
#     fuzz/run.sh SECONDS [TARGET...]
#
# MEMORY_MB (2048) limits the memory of the process, INPUT_SECONDS (10) the time for one input.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "$1" >&2
    exit 2
}

seconds=${1:-}
case $seconds in
'' | *[!0-9]*) fail "usage: fuzz/run.sh SECONDS [TARGET...]" ;;
esac
shift
command -v cargo >/dev/null || fail "cargo is not installed"
cargo +nightly --version >/dev/null 2>&1 || fail "there is no nightly toolchain: rustup toolchain install nightly"
cargo +nightly fuzz --version >/dev/null 2>&1 || fail "cargo-fuzz is not installed: cargo install --locked cargo-fuzz"

[ $# -gt 0 ] || set -- $(sed -n 's/^path = "fuzz_targets\/\([a-z_]*\).*/\1/p' fuzz/Cargo.toml)
mkdir -p fuzz/logs
cargo +nightly fuzz build

crashed=
printf '%-14s %9s %10s %8s %8s %8s %8s\n' target seconds inputs 'per s' edges corpus crashes
for target; do
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target" "fuzz/seeds/$target"
    log=fuzz/logs/$target.log
    before=$(ls "fuzz/artifacts/$target" | wc -l)
    dictionary=
    [ ! -f "fuzz/dictionaries/$target.dict" ] || dictionary=-dict=fuzz/dictionaries/$target.dict
    status=0
    cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb="${MEMORY_MB:-2048}" -timeout="${INPUT_SECONDS:-10}" \
        -max_len=2048 -print_final_stats=1 -print_funcs=0 $dictionary >"$log" 2>&1 || status=$?
    after=$(ls "fuzz/artifacts/$target" | wc -l)
    final_stat() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1; }
    last=$(grep -a '^#[0-9]' "$log" | tail -n 1)
    edges=$(echo "$last" | sed -n 's/.* cov: \([0-9]*\).*/\1/p')
    corpus=$(echo "$last" | sed -n 's/.* corp: \([0-9]*\).*/\1/p')
    printf '%-14s %9s %10s %8s %8s %8s %8s\n' "$target" "$seconds" "$(final_stat number_of_executed_units)" \
        "$(final_stat average_exec_per_sec)" "$edges" "$corpus" "$((after - before))"
    if [ "$status" != 0 ]; then
        crashed="$crashed $target"
        grep -a -A 3 -m 1 'panicked at\|ERROR: ' "$log" | sed 's/^/    /' || true
        echo "    full log: $log; input: fuzz/artifacts/$target"
    fi
done
[ -z "$crashed" ] || {
    echo "crashed:$crashed" >&2
    exit 1
}
