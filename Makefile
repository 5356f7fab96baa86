# Builds, installs, tests and measures lockd. Continuous integration runs `make test`.

CARGO ?= cargo
# For the commands that install the tools of the tests as root.
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

# The directories of `make install`, below DESTDIR if it is given.
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
# The directory with the built libraries and the program; a packager or a test may have them
# elsewhere.
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release
BUILT ?= $(RELEASE)
PROGRAM ?= $(BUILT)/lockd
# The output of the benchmark `broker`, which the benchmark `compare` turns into tables.
BROKER_FIGURES := $(RELEASE)/broker-figures.txt

# Where npm puts the versions of PHP that the PHP package is tried with.
PHP_VERSIONS := $(or $(CARGO_TARGET_DIR),target)/php-versions

VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml)
# The date on the manual pages.
DATE ?= $(shell date -u -d "@$${SOURCE_DATE_EPOCH:-$$(date +%s)}" +%F)
UNITS := lockd.service lockd-lockd.socket lockd-glockd.socket lockd-message.socket
CONFIGURATION = "$(DESTDIR)$(SYSCONFDIR)/lockd/lockd.toml"
SONAME := liblockd.so.1
SHARED := $(SONAME).$(VERSION)

.PHONY: all install install-library install-program uninstall deb test test-rust test-setup test-php test-php-aside test-php-versions check check-php test-tools sanitize check-deep check-deep-setup bench bench-setup clean

all:
	$(CARGO) build --release --locked

# Only files that are older than the sources are built. So after `make`, `sudo make install` needs
# no cargo.
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

# With the manual pages and completions that the program generates. An existing configuration is
# kept.
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

# A changed configuration is kept.
uninstall:
	if cmp -s packaging/lockd.toml $(CONFIGURATION); then rm -f $(CONFIGURATION); fi
	rm -f "$(DESTDIR)$(MANDIR)"/man1/lockd.1 "$(DESTDIR)$(MANDIR)"/man1/lockd-*.1 \
		$(UNITS:%="$(DESTDIR)$(SYSTEMDDIR)/%") "$(DESTDIR)$(BASH_COMPLETIONS)/lockd" \
		"$(DESTDIR)$(ZSH_COMPLETIONS)/_lockd" "$(DESTDIR)$(FISH_COMPLETIONS)/lockd.fish"
	rm -f "$(DESTDIR)$(BINDIR)/lockd" "$(DESTDIR)$(INCLUDEDIR)/lockd.h" "$(DESTDIR)$(LIBDIR)/liblockd.a" \
		"$(DESTDIR)$(LIBDIR)/liblockd.so" "$(DESTDIR)$(LIBDIR)/$(SONAME)" \
		"$(DESTDIR)$(LIBDIR)/$(SHARED)" "$(DESTDIR)$(LIBDIR)/pkgconfig/lockd.pc"

# Debian packages of the built files, in target/debian: lockd, liblockd1, liblockd-dev.
deb: $(BUILT)/liblockd.so $(BUILT)/liblockd.a $(PROGRAM)
	packaging/deb/build.sh "$(VERSION)" "$(or $(CARGO_TARGET_DIR),target)/debian"

# Many tests mostly wait, so more of them run at a time than there are processors.
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))

# Everything: the tools that the tests need, the checks, and the tests.
test: test-setup check check-php
	$(CARGO) test --locked --no-run
	$(MAKE) --no-print-directory -j2 test-rust test-php-aside
	tests/c_abi/sanitize.sh

test-rust:
	$(CARGO) test --locked
	$(CARGO) test --locked --test conformance -- --planted

# The tests of the PHP package mostly wait, so they run beside the others. What they print comes in
# one piece.
test-php-aside:
	@log="$$(mktemp)" && { $(MAKE) --no-print-directory test-php >"$$log" 2>&1; status=$$?; \
		cat "$$log"; rm -f "$$log"; exit $$status; }

# The tests of the PHP package, with the server and the library that cargo has built for its own
# tests; and a table of all ways in which a request of php-fpm can end.
test-php:
	$(CARGO) test --locked --no-run --quiet --test blackbox
	cd bindings/php && phpunit
	php bindings/php/tests/endings.php
	$(MAKE) --no-print-directory test-php-versions

# The PHP package with PHP 8.1, 8.3, 8.4 and 8.5, from npm.
test-php-versions:
	@if [ "$$(uname -m)" = x86_64 ] && command -v node >/dev/null && command -v npm >/dev/null; then \
		$(MAKE) --no-print-directory "$(PHP_VERSIONS)/installed" && \
		php bindings/php/tests/versions.php "$(PHP_VERSIONS)/node_modules"; \
		else echo 'test-php-versions: no npm, or not x86_64: other versions of PHP are not tried'; fi

$(PHP_VERSIONS)/installed: bindings/php/tests/Versions/package-lock.json
	mkdir -p "$(@D)"
	cp bindings/php/tests/Versions/package.json bindings/php/tests/Versions/package-lock.json "$(@D)"
	cd "$(@D)" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch "$@"

# C programs with AddressSanitizer and ThreadSanitizer, if there is a nightly tool chain.
sanitize:
	tests/c_abi/sanitize.sh

# The tests of the promises in docs/guarantees.md that take too long for every change: most of an
# hour. Parts whose requirements are missing (a nightly tool chain, Miri, the right to create
# network namespaces) are skipped, with a message.
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

# The manifest for Composer, the style of the PHP sources, and their types if mago is installed.
check-php:
	COMPOSER_ALLOW_SUPERUSER=1 composer validate --strict --no-check-lock --no-interaction
	phpcs -q --standard=bindings/php/phpcs.xml bindings/php examples/php
	@if command -v mago >/dev/null; then cd bindings/php && mago analyze; \
		else echo 'check-php: no mago (cargo install mago): the types are not checked'; fi

# Compilers, valgrind and pkg-config for programs in C; PHP, its test tools and the frameworks that
# the PHP package works with; Chromium for the server's page; nc; ip for networks that fail; patch for
# planted faults; Python for the clients of the conformance kit; and etcd for clusters.
test-setup:
	@for tool in cc c++ make pkg-config valgrind php phpunit phpcs composer git cgi-fcgi chromium nc ip openssl patch python3 \
		etcd etcdctl; do \
		command -v $$tool >/dev/null || exec $(MAKE) --no-print-directory test-tools; done; \
	ls /usr/sbin/php-fpm* /usr/share/php/Symfony/Component/Lock/Lock.php \
		/usr/share/php/Symfony/Component/Semaphore/Semaphore.php \
		/usr/share/php/Symfony/Bundle/FrameworkBundle/FrameworkBundle.php \
		/usr/share/php/Symfony/Component/Console/Application.php \
		/usr/share/php/Symfony/Component/Messenger/MessageBus.php \
		/usr/share/php/Symfony/Component/RateLimiter/RateLimiterFactory.php \
		/usr/share/php/Symfony/Component/Yaml/Yaml.php /usr/lib/php/*/pdo_sqlite.so \
		/usr/share/php/Illuminate/Contracts/Cache/Lock.php /usr/share/php/Cron/CronExpression.php \
		/usr/share/php/Illuminate/Queue/autoload.php /usr/share/php/Illuminate/Cache/autoload.php \
		/usr/share/php/Illuminate/Config/autoload.php /usr/share/php/Illuminate/Events/autoload.php \
		/usr/share/php/Dotenv/autoload.php >/dev/null 2>&1 || \
		exec $(MAKE) --no-print-directory test-tools

test-tools:
	$(SUDO) apt-get update -qq
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		gcc g++ make libc6-dev pkg-config valgrind libc6-dbg netcat-openbsd iproute2 \
		php-cli php-fpm libfcgi-bin phpunit php-codesniffer composer git php-symfony-lock php-symfony-semaphore \
		php-symfony-framework-bundle php-symfony-console php-symfony-messenger php-symfony-rate-limiter \
		php-symfony-yaml php-sqlite3 openssl patch python3 \
		php-illuminate-cache php-illuminate-config php-illuminate-console php-illuminate-contracts \
		php-illuminate-events php-illuminate-filesystem php-illuminate-queue \
		php-dragonmantank-cron-expression php-vlucas-phpdotenv chromium fonts-dejavu-core \
		etcd-server etcd-client

# Measures the figures of docs/performance.md again. The machine should be idle otherwise. Redis,
# memcached and PostgreSQL are also measured if they are installed.
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
