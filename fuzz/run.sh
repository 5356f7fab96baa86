#!/bin/sh
# Fuzzes every target for SECONDS each, one after the other, and says of each how far it came: inputs executed,
# how many a second, edges of the code that were reached, inputs kept, crashes. Ends with a status other than 0
# if there was a crash. Installs nothing.
#
#     fuzz/run.sh SECONDS [TARGET...]
#
# MEMORY_MB (2048) and INPUT_SECONDS (10) say how much memory the process and how long one input may take.
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
command -v cargo >/dev/null || fail "there is no cargo"
cargo +nightly --version >/dev/null 2>&1 || fail "there is no nightly tool-chain: rustup toolchain install nightly"
cargo +nightly fuzz --version >/dev/null 2>&1 || fail "there is no cargo-fuzz: cargo install --locked cargo-fuzz"

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
    figure() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1; }
    last=$(grep -a '^#[0-9]' "$log" | tail -n 1)
    edges=$(echo "$last" | sed -n 's/.* cov: \([0-9]*\).*/\1/p')
    corpus=$(echo "$last" | sed -n 's/.* corp: \([0-9]*\).*/\1/p')
    printf '%-14s %9s %10s %8s %8s %8s %8s\n' "$target" "$seconds" "$(figure number_of_executed_units)" \
        "$(figure average_exec_per_sec)" "$edges" "$corpus" "$((after - before))"
    if [ "$status" != 0 ]; then
        crashed="$crashed $target"
        grep -a -A 3 -m 1 'panicked at\|ERROR: ' "$log" | sed 's/^/    /' || true
        echo "    the whole of it: $log; the input: fuzz/artifacts/$target"
    fi
done
[ -z "$crashed" ] || {
    echo "crashed:$crashed" >&2
    exit 1
}
