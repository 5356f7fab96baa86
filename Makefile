# What there is to do with lockd. `make test` is what continuous integration runs.

CARGO ?= cargo
# For installing what the tests need, where that takes another user.
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

# Where `make install` puts things, below DESTDIR if that is given.
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
SYSCONFDIR ?= $(if $(filter /usr,$(PREFIX)),/etc,$(PREFIX)/etc)
SYSTEMDDIR ?= $(PREFIX)/lib/systemd/system
BASH_COMPLETIONS ?= $(PREFIX)/share/bash-completion/completions
ZSH_COMPLETIONS ?= $(PREFIX)/share/zsh/site-functions
FISH_COMPLETIONS ?= $(PREFIX)/share/fish/vendor_completions.d
# Where cargo has built the libraries and the program; a packager or a test may have them elsewhere.
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release
BUILT ?= $(RELEASE)
PROGRAM ?= $(BUILT)/lockd
# What the benchmark of the broker has said, for the one that makes tables of it.
BROKER_FIGURES := $(RELEASE)/broker-figures.txt

VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml)
# What manual pages are dated.
DATE ?= $(shell date -u -d "@$${SOURCE_DATE_EPOCH:-$$(date +%s)}" +%F)
UNITS := lockd.service lockd-lockd.socket lockd-glockd.socket lockd-message.socket
CONFIGURATION = "$(DESTDIR)$(SYSCONFDIR)/lockd/lockd.toml"
SONAME := liblockd.so.1
SHARED := $(SONAME).$(VERSION)

.PHONY: all install install-library install-program uninstall deb test test-setup test-php check check-php test-tools sanitize check-deep check-deep-setup bench bench-setup clean

all:
	$(CARGO) build --release --locked

# Only what is older than its sources: so after `make`, `sudo make install` needs no cargo.
$(RELEASE)/liblockd.so $(RELEASE)/liblockd.a $(RELEASE)/lockd &: \
		Cargo.toml Cargo.lock build.rs $(shell find src -name '*.rs')
	$(CARGO) build --release --locked

install: install-library install-program

install-library: $(BUILT)/liblockd.so $(BUILT)/liblockd.a
	install -d "$(DESTDIR)$(LIBDIR)/pkgconfig" "$(DESTDIR)$(INCLUDEDIR)"
	install -m 644 include/lockd.h "$(DESTDIR)$(INCLUDEDIR)"
	install -m 644 "$(BUILT)/liblockd.a" "$(DESTDIR)$(LIBDIR)"
	install -m 644 "$(BUILT)/liblockd.so" "$(DESTDIR)$(LIBDIR)/$(SHARED)"
	ln -sf $(SHARED) "$(DESTDIR)$(LIBDIR)/$(SONAME)"
	ln -sf $(SONAME) "$(DESTDIR)$(LIBDIR)/liblockd.so"
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' \
		-e 's|@LIBDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))|' \
		-e 's|@INCLUDEDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(INCLUDEDIR))|' \
		lockd.pc.in > "$(DESTDIR)$(LIBDIR)/pkgconfig/lockd.pc"

# With what it says of itself; a configuration that is there stays.
install-program: $(PROGRAM)
	install -d "$(DESTDIR)$(BINDIR)" "$(DESTDIR)$(MANDIR)/man1" "$(DESTDIR)$(SYSTEMDDIR)" \
		"$(DESTDIR)$(SYSCONFDIR)/lockd" "$(DESTDIR)$(BASH_COMPLETIONS)" "$(DESTDIR)$(ZSH_COMPLETIONS)" \
		"$(DESTDIR)$(FISH_COMPLETIONS)"
	install -m 755 "$(PROGRAM)" "$(DESTDIR)$(BINDIR)/lockd"
	"$(PROGRAM)" man "$(DESTDIR)$(MANDIR)/man1" --date $(DATE)
	sed -i 's|/etc/lockd|$(SYSCONFDIR)/lockd|' "$(DESTDIR)$(MANDIR)/man1/lockd.1" \
		"$(DESTDIR)$(MANDIR)/man1/lockd-serve.1"
	"$(PROGRAM)" completions bash > "$(DESTDIR)$(BASH_COMPLETIONS)/lockd"
	"$(PROGRAM)" completions zsh > "$(DESTDIR)$(ZSH_COMPLETIONS)/_lockd"
	"$(PROGRAM)" completions fish > "$(DESTDIR)$(FISH_COMPLETIONS)/lockd.fish"
	test -e $(CONFIGURATION) || install -m 644 packaging/lockd.toml $(CONFIGURATION)
	for unit in $(UNITS); do \
		sed -e 's|/usr/bin/lockd|$(BINDIR)/lockd|' -e 's|/etc/lockd|$(SYSCONFDIR)/lockd|' "packaging/$$unit" \
			> "$(DESTDIR)$(SYSTEMDDIR)/$$unit" || exit 1; done

# A configuration that has been changed stays.
uninstall:
	if cmp -s packaging/lockd.toml $(CONFIGURATION); then rm -f $(CONFIGURATION); fi
	rm -f "$(DESTDIR)$(MANDIR)"/man1/lockd.1 "$(DESTDIR)$(MANDIR)"/man1/lockd-*.1 \
		$(UNITS:%="$(DESTDIR)$(SYSTEMDDIR)/%") "$(DESTDIR)$(BASH_COMPLETIONS)/lockd" \
		"$(DESTDIR)$(ZSH_COMPLETIONS)/_lockd" "$(DESTDIR)$(FISH_COMPLETIONS)/lockd.fish"
	rm -f "$(DESTDIR)$(BINDIR)/lockd" "$(DESTDIR)$(INCLUDEDIR)/lockd.h" "$(DESTDIR)$(LIBDIR)/liblockd.a" \
		"$(DESTDIR)$(LIBDIR)/liblockd.so" "$(DESTDIR)$(LIBDIR)/$(SONAME)" \
		"$(DESTDIR)$(LIBDIR)/$(SHARED)" "$(DESTDIR)$(LIBDIR)/pkgconfig/lockd.pc"

# Debian packages of what is built, in target/debian: lockd, liblockd1, liblockd-dev.
deb: $(BUILT)/liblockd.so $(BUILT)/liblockd.a $(PROGRAM)
	packaging/deb/build.sh "$(VERSION)" "$(or $(CARGO_TARGET_DIR),target)/debian"

# Many tests wait for something most of the time: more of them at once than there are processors.
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))

# Everything: the tools the tests need, the checks, the tests.
test: test-setup check check-php
	$(CARGO) test --locked
	$(MAKE) --no-print-directory test-php
	tests/c_abi/sanitize.sh

# The PHP package, against the server and the library as cargo has built them for its own tests; and every way in
# which a request of php-fpm can end, as a table.
test-php:
	$(CARGO) test --locked --no-run --quiet --test blackbox
	cd bindings/php && phpunit
	php bindings/php/tests/endings.php

# C programs with AddressSanitizer and ThreadSanitizer, where there is a nightly tool-chain.
sanitize:
	tests/c_abi/sanitize.sh

# What shows the promises of docs/guarantees.md and takes too long for every change: most of an hour. Parts that
# need what is not there (a nightly tool-chain, Miri, the right to make network namespaces) are skipped, and
# said to be.
check-deep: check-deep-setup
	tests/deep.sh

check-deep-setup: test-setup
	@if $(CARGO) +nightly --version >/dev/null 2>&1 && ! $(CARGO) +nightly fuzz --version >/dev/null 2>&1; then \
		$(CARGO) install --locked cargo-fuzz; fi

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --lib --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

# The style of what is written in PHP; and its types, where mago is installed.
check-php:
	phpcs -q --standard=bindings/php/phpcs.xml bindings/php examples/php
	@if command -v mago >/dev/null; then cd bindings/php && mago analyze; \
		else echo 'check-php: no mago (cargo install mago): the types are not checked'; fi

# Compilers, valgrind and pkg-config for programs in C, Debian's PHP for clients in PHP with what its package is
# tested by and works with, Chromium for the server's page, nc, and ip for networks that fail.
test-setup:
	@for tool in cc c++ make pkg-config valgrind php phpunit phpcs cgi-fcgi chromium nc ip; do \
		command -v $$tool >/dev/null || exec $(MAKE) --no-print-directory test-tools; done; \
	ls /usr/sbin/php-fpm* /usr/share/php/Symfony/Component/Lock/Lock.php \
		/usr/share/php/Illuminate/Contracts/Cache/Lock.php >/dev/null 2>&1 || \
		exec $(MAKE) --no-print-directory test-tools

test-tools:
	$(SUDO) apt-get update -qq
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		gcc g++ make libc6-dev pkg-config valgrind libc6-dbg netcat-openbsd iproute2 \
		php-cli php-fpm libfcgi-bin phpunit php-codesniffer php-symfony-lock php-illuminate-contracts \
		chromium fonts-dejavu-core

# Writes the figures of docs/performance.md anew, on a machine that should have nothing else to do. Beside
# lockd it measures what is installed of Redis, memcached and PostgreSQL.
bench:
	@mkdir -p "$(RELEASE)"
	$(CARGO) bench --locked --bench broker > "$(BROKER_FIGURES)"
	BROKER_FIGURES="$(abspath $(BROKER_FIGURES))" $(CARGO) bench --locked --bench compare

bench-setup:
	$(SUDO) apt-get update -qq
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		redis-server memcached postgresql

clean:
	$(CARGO) clean
