#!/bin/sh
# Installs, upgrades, removes and purges the packages on this machine, as root, and checks the result of
# each step. Leaves the machine as it was. For machines on which lockd is not installed. Where no systemd
# runs (in a container), the steps with the service are skipped, with a message.
#
#   packaging/test-deb.sh DIRECTORY-WITH-PACKAGES DIRECTORY-WITH-HIGHER-PACKAGES
set -eu

older=$1
newer=$2
fail() {
	echo "test-deb: $*" >&2
	exit 1
}
[ "$(id -u)" = 0 ] || fail "it must run as root"
if dpkg -s lockd liblockd1 2> /dev/null | grep -q '^Status:'; then fail "a package of lockd is already installed"; fi
if [ -e /etc/lockd ] || [ -e /usr/bin/lockd ]; then fail "a lockd is already installed"; fi
directory=$(mktemp -d)
server=
clean_up() {
	if [ -n "$server" ]; then kill "$server" 2> /dev/null || true; fi
	dpkg --purge liblockd-dev liblockd1 lockd > /dev/null 2>&1 || true
	rm -rf "$directory"
}
trap clean_up EXIT
step() { echo "test-deb: $*"; }
if [ -d /run/systemd/system ]; then has_systemd=yes; else has_systemd=no; fi

step "install"
dpkg -i "$older"/*.deb > /dev/null
for package in lockd liblockd1 liblockd-dev; do
	[ -z "$(dpkg --verify $package)" ] || fail "the files of $package differ from the package"
done
[ "$(lockd --version)" = "$(/usr/bin/lockd --version)" ] || fail "lockd is not in the path"
getent passwd lockd > /dev/null || fail "there is no user lockd"
ldconfig -p | grep -q 'liblockd\.so\.1 ' || fail "the loader does not know liblockd"
man -w lockd > /dev/null || fail "there is no manual page"
systemd-analyze verify lockd.service lockd-lockd.socket lockd-glockd.socket lockd-message.socket ||
	fail "systemd does not accept the units"
systemctl --quiet is-enabled lockd.service || fail "the server is not enabled"

step "run with the installed configuration and user"
cat > "$directory/program.c" <<'C'
#include <lockd.h>
#include <stdio.h>

int main(void)
{
    printf("%s\n", lock_version());
    return 0;
}
C
cc "$directory/program.c" $(pkg-config --cflags --libs lockd) -o "$directory/program"
"$directory/program" | grep -q . || fail "a program with liblockd does not run"
chown lockd "$directory"
lockd serve --config /etc/lockd/lockd.toml --listen "glockd+unix:$directory/glockd.sock" --user lockd \
	--state-dir "$directory/state" 2> "$directory/log" &
server=$!
tries=100
until grep -q 'listening on' "$directory/log"; do
	tries=$((tries - 1))
	[ "$tries" -gt 0 ] || fail "the server does not start: $(cat "$directory/log")"
	sleep 0.1
done
[ "$(stat -c %U "/proc/$server")" = lockd ] || fail "the server does not run as lockd"
kill "$server"
wait "$server" || fail "the server did not stop cleanly"
server=

if [ $has_systemd = yes ]; then
	step "the service runs, and reloads"
	systemctl is-active --quiet lockd.service || fail "the service has not been started"
	systemctl reload lockd.service
	systemctl is-active --quiet lockd.service || fail "the service does not reload"
	before=$(systemctl show -p MainPID lockd.service)
else
	step "(no systemd runs here: the steps with the service are skipped)"
fi

step "upgrade with a changed configuration"
echo 'locks-max = 1000' >> /etc/lockd/lockd.toml
dpkg -i "$newer"/*.deb > /dev/null
tail -n 1 /etc/lockd/lockd.toml | grep -q 'locks-max = 1000' || fail "the upgrade has changed the configuration"
systemctl --quiet is-enabled lockd.service || fail "the upgraded server is not enabled"
if [ $has_systemd = yes ]; then
	systemctl is-active --quiet lockd.service || fail "the upgraded service does not run"
	[ "$before" != "$(systemctl show -p MainPID lockd.service)" ] || fail "the old server still runs"
fi

step "remove"
dpkg -r liblockd-dev liblockd1 lockd > /dev/null
[ ! -e /usr/bin/lockd ] || fail "the program is still there"
[ -e /etc/lockd/lockd.toml ] || fail "the removal has deleted the configuration"
if [ $has_systemd = yes ] && systemctl is-active --quiet lockd.service; then fail "the service still runs"; fi

step "install again, purge"
dpkg -i "$newer"/lockd_*.deb > /dev/null
[ "$(readlink -f /etc/systemd/system/lockd.service 2> /dev/null)" != /dev/null ] || fail "the service is still masked"
dpkg --purge lockd > /dev/null
left=$(find / -xdev \( -path /proc -o -path /tmp -o -path /var/lib/dpkg/info -o -path "$PWD" \) -prune -o \
	\( -name 'lockd.service' -o -name 'lockd-*.socket' -o -path /etc/lockd -o -path '*/lockd.service.dsh*' \
	-o -path /var/lib/lockd -o -path /var/lib/private/lockd -o -path /usr/bin/lockd \) -print)
left=$(echo "$left" | grep -v "/packaging/" || true)
[ -z "$left" ] || fail "the purge has left: $left"
if getent passwd lockd > /dev/null; then fail "the purge has left the user lockd"; fi
step "all checks passed"
