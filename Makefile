# What there is to do with lockd. `make test` is what continuous integration runs.

CARGO ?= cargo
# For installing what the tests need, where that takes another user.
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

.PHONY: all test test-setup check sanitize clean

all:
	$(CARGO) build --release

# Everything: the tools the tests need, the checks, the tests.
test: test-setup check
	$(CARGO) test --locked
	tests/c_abi/sanitize.sh

# C programs with AddressSanitizer and ThreadSanitizer, where there is a nightly tool-chain.
sanitize:
	tests/c_abi/sanitize.sh

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --lib --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

# Debian's PHP, for the tests that run clients as they were written for the originals, and nc.
test-setup:
	@command -v php >/dev/null && command -v nc >/dev/null || { \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			php-cli netcat-openbsd; }

clean:
	$(CARGO) clean
