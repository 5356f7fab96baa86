#!/bin/sh
# Runs the Rust tests with ThreadSanitizer and then with AddressSanitizer (which also finds leaks):
# the tests of the library, of clients with servers in the same process, and the black-box tests
# with a server that is built with the sanitizer. A report ends the process with a special status,
# and is found in the log as well. This needs a nightly toolchain; without one the script says so
# and succeeds.
#
# With names of sanitizers ("thread", "address"), it runs only those.
set -eu
cd "$(dirname "$0")/.."
rustc +nightly --version >/dev/null 2>&1 || {
    echo "skipped: there is no nightly toolchain, so the Rust tests are NOT run with sanitizers"
    exit 0
}
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}
logs=$(mktemp -d)
trap 'cat "$logs"/* 2>/dev/null || :; rm -rf "$logs"' EXIT

test_with() { # SANITIZER, more flags for rustc
    sanitized() { # the tests to run
        RUSTFLAGS="-Zsanitizer=$1 $2" cargo +nightly test --locked --quiet \
            --target "$host" --target-dir "$target/$1" $3
    }
    # One test at a time: then the harness starts no threads, and the sanitizer cannot misread the
    # channels of std. The test that visits every state has one thread, and would take an hour.
    # Another test must see each of several outcomes often within a time that is too short here.
    sanitized "$1" "$2" "--lib --bin lockd --test client -- --test-threads=1 --skip in_every_state \
        --skip a_grant_that_crosses_a_cancel_or_a_time_out"
    # Only the server is of interest there; the test program itself needs no sanitizer.
    SANITIZED_PROGRAM=yes LOCKD_PROGRAM=$(cd "$target/$1/$host/debug" && pwd)/lockd \
        cargo test --locked --quiet --test blackbox -- --test-threads=4 $SKIPPED_OF_SERVERS
    ! grep -l . "$logs"/* 2>/dev/null || exit 1
}

for sanitizer in ${*:-thread address}; do
    case $sanitizer in
    thread)
        export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp die_after_fork=0 exitcode=66 log_path=$logs/report"
        # With ThreadSanitizer, a signal is not handled before the thread makes a call that the
        # sanitizer knows. The program's main thread sleeps in a call of std that it does not know.
        # Also, memory and descriptors are not used by the server alone.
        SKIPPED_OF_SERVERS="--skip sighup --skip signals_stop_it --skip pidfile_is_held --skip a_stop_ \
            --skip a_thousand_idle --skip a_lack_of_descriptors --skip restart --skip a_reload_that_waits \
            --skip suppressed_messages --skip planted_links --skip has_lost_its_socket_file \
            --skip another_user_that_it_becomes"
        test_with thread "-Cunsafe-allow-abi-mismatch=sanitizer"
        ;;
    address)
        export ASAN_OPTIONS="exitcode=66 log_path=$logs/report"
        SKIPPED_OF_SERVERS="--skip a_thousand_idle"
        test_with address ""
        ;;
    esac
done
