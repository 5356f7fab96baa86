#!/bin/sh
# Runs the tests in Rust with ThreadSanitizer and then with AddressSanitizer (which finds leaks, too): those of
# the library, of clients with servers in the same process, and the black-box tests with a server that has the
# sanitizer built in. A report ends a process with a status of its own and is found in the log besides. That
# takes a nightly tool-chain; without one it says so, and all is well.
#
# With names of sanitizers ("thread", "address"), only those.
set -eu
cd "$(dirname "$0")/.."
rustc +nightly --version >/dev/null 2>&1 || {
    echo "skipped: there is no nightly tool-chain, so the tests in Rust are NOT run with sanitizers"
    exit 0
}
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}
logs=$(mktemp -d)
trap 'cat "$logs"/* 2>/dev/null || :; rm -rf "$logs"' EXIT

test_with() { # SANITIZER, more flags for rustc
    sanitized() { # what is tested
        RUSTFLAGS="-Zsanitizer=$1 $2" cargo +nightly test --locked --quiet \
            --target "$host" --target-dir "$target/$1" $3
    }
    # One test at a time: then the harness starts no threads, and has none of std's channels to be misread. What goes
    # through every state has one thread, and would take an hour; and one test must see each of several ends often within
    # a time that is too short then.
    sanitized "$1" "$2" "--lib --bin lockd --test client -- --test-threads=1 --skip in_every_state \
        --skip a_grant_that_crosses_a_cancel_or_a_time_out"
    # What is of interest there is the server; the test itself may be an ordinary one.
    SANITIZED_PROGRAM=yes LOCKD_PROGRAM=$(cd "$target/$1/$host/debug" && pwd)/lockd \
        cargo test --locked --quiet --test blackbox -- --test-threads=4 $SKIPPED_OF_SERVERS
    ! grep -l . "$logs"/* 2>/dev/null || exit 1
}

for sanitizer in ${*:-thread address}; do
    case $sanitizer in
    thread)
        export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp die_after_fork=0 exitcode=66 log_path=$logs/report"
        # With it a signal is not taken before the thread makes a call that it knows of, and the program's main
        # thread sleeps in std, of which it knows nothing. And memory and descriptors are not the server's alone.
        SKIPPED_OF_SERVERS="--skip sighup --skip signals_stop_it --skip pidfile_is_held --skip a_stop_ \
            --skip a_thousand_idle --skip a_lack_of_descriptors --skip restart --skip a_reload_that_waits \
            --skip what_is_not_told_yet --skip planted_links --skip has_lost_its_socket_file \
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
