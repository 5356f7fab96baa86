#!/bin/sh
# Makes Debian packages of what `make` has built, with dpkg-deb alone: lockd (the server), liblockd1
# (the library), liblockd-dev (the files for building programs). Called by `make deb`.
#
#   build.sh VERSION DIRECTORY
#
# DEB_REVISION (default 1) is the last part of the version. With SOURCE_DATE_EPOCH set, the packages are
# reproducible.
set -eu
umask 022

version=$1-${DEB_REVISION:-1}
mkdir -p "$2"
out=$(cd "$2" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

architecture=$(dpkg --print-architecture)
triplet=$(cc -print-multiarch 2>/dev/null || true)
library_directory=/usr/lib/${triplet:-$(uname -m)-linux-gnu}
maintainer=${DEBFULLNAME:-The lockd maintainers}" <${DEBEMAIL:-lockd@localhost.localdomain}>"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

# Prints the dependency on the oldest C library that has all the symbols which a file needs.
needs_libc() {
	symbols=$(objdump -T "$1" | sed -n 's/.*(\{0,1\}GLIBC_\([0-9][0-9.]*\))\{0,1\}.*/\1/p' | sort -uV | tail -n 1)
	echo "libc6 (>= $symbols), libgcc-s1 (>= 4.2)"
}

# control PACKAGE SECTION DEPENDS EXTRA SUMMARY < DESCRIPTION
control() {
	mkdir -p "$stage/$1/DEBIAN"
	{
		printf 'Package: %s\nSource: lockd\nVersion: %s\nArchitecture: %s\n' "$1" "$version" "$architecture"
		printf 'Maintainer: %s\nSection: %s\nPriority: optional\n' "$maintainer" "$2"
		printf 'Installed-Size: %s\nDepends: %s\n' "$(du -k -s --exclude=DEBIAN "$stage/$1" | cut -f 1)" "$3"
		if [ -n "$4" ]; then printf '%s\n' "$4"; fi
		printf 'Description: %s\n' "$5"
		sed -e 's/^$/./' -e 's/^/ /'
	} > "$stage/$1/DEBIAN/control"
}

# Adds the files that every package has, and builds the package.
finish() {
	tree=$stage/$1
	doc=$tree/usr/share/doc/$1
	mkdir -p "$doc"
	install -m 644 "$here/copyright" "$doc/copyright"
	gzip -9n < "$root/CHANGELOG.md" > "$doc/changelog.gz"
	printf 'lockd (%s) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- %s  %s\n' "$version" "$maintainer" \
		"$(date -uR -d "@$SOURCE_DATE_EPOCH")" | gzip -9n > "$doc/changelog.Debian.gz"
	(cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
	find "$tree" -type d -exec chmod 755 {} +
	dpkg-deb --root-owner-group --build "$tree" "$out/$1_${version}_$architecture.deb" > /dev/null
	echo "$out/$1_${version}_$architecture.deb"
}

mkdir -p "$stage/lockd" "$stage/liblockd1$library_directory" "$stage/liblockd-dev"
make --no-print-directory -s -C "$root" install-program DESTDIR="$stage/lockd" PREFIX=/usr \
	ZSH_COMPLETIONS=/usr/share/zsh/vendor-completions
make --no-print-directory -s -C "$root" install-library DESTDIR="$stage/liblockd-dev" PREFIX=/usr \
	LIBDIR="$library_directory"
mv "$stage/liblockd-dev$library_directory"/liblockd.so.1* "$stage/liblockd1$library_directory"
strip --remove-section=.comment --remove-section=.note "$stage/lockd/usr/bin/lockd"
strip --strip-unneeded --remove-section=.comment --remove-section=.note \
	"$stage/liblockd1$library_directory"/liblockd.so.1.*
strip --strip-debug "$stage/liblockd-dev$library_directory/liblockd.a"
chmod 644 "$stage/liblockd1$library_directory"/liblockd.so.1.*
gzip -9n "$stage/lockd/usr/share/man/man1"/*.1
mkdir -p "$stage/lockd/usr/share/doc/lockd"
cp "$root"/docs/*.md "$stage/lockd/usr/share/doc/lockd"

control lockd net "$(needs_libc "$stage/lockd/usr/bin/lockd"), adduser, init-system-helpers (>= 1.52)" \
	"Suggests: systemd" "lock broker for programs on one or many machines" <<'TEXT'
Named locks for processes. When a process ends, its locks are freed at once,
because the kernel ends its connection; no timer has to expire. The server
speaks the protocols of PHP lockd, glockd and pkLockServer, so that their
clients need no change.
TEXT
echo /etc/lockd/lockd.toml > "$stage/lockd/DEBIAN/conffiles"
for script in postinst prerm postrm; do
	install -m 755 "$here/$script" "$stage/lockd/DEBIAN/$script"
done
finish lockd

control liblockd1 libs "$(needs_libc "$stage/liblockd1$library_directory/liblockd.so.1")" \
	"Multi-Arch: same" "lock broker in a library" <<'TEXT'
Sessions on a lockd server, or on a broker in the program itself, with the
same functions.
TEXT
echo "liblockd 1 liblockd1 (>= ${version%-*})" > "$stage/liblockd1/DEBIAN/shlibs"
echo "activate-noawait ldconfig" > "$stage/liblockd1/DEBIAN/triggers"
finish liblockd1

control liblockd-dev libdevel "liblockd1 (= $version)" "Multi-Arch: same" \
	"lock broker in a library (development files)" <<'TEXT'
The header, the static library and the pkg-config file of liblockd.
TEXT
finish liblockd-dev
