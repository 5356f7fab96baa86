#!/bin/sh
# Runs the C programs of this directory with AddressSanitizer (which also finds leaks) and then with
# ThreadSanitizer, built into the programs and into the library. This needs a nightly toolchain;
# without one the script says so and succeeds.
set -eu
cd "$(dirname "$0")/../.."
rustc +nightly --version >/dev/null 2>&1 || {
    echo "there is no nightly toolchain: the C programs are not run with sanitizers"
    exit 0
}
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
runtimes=$(rustc +nightly --print sysroot)/lib/rustlib/$host/lib
target=${CARGO_TARGET_DIR:-target}

run() { # SANITIZER, its runtime's short name, more flags for rustc
    RUSTFLAGS="-Zsanitizer=$1 $3" cargo +nightly build --locked --quiet --lib --no-default-features \
        --target "$host" --target-dir "$target/$1"
    # The C programs are linked with Rust's copy of the runtime: gcc's may be too old for the library.
    LIBLOCKD_DIR=$(cd "$target/$1/$host/debug" && pwd) \
        LIBLOCKD_CFLAGS="-fsanitize=$1" \
        LIBLOCKD_LDFLAGS="-Wl,--whole-archive $runtimes/librustc-nightly_rt.$2.a -Wl,--no-whole-archive" \
        cargo test --locked --quiet --test c_abi -- programs::
}

run address asan ""
export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp die_after_fork=0"
run thread tsan "-Cunsafe-allow-abi-mismatch=sanitizer"
