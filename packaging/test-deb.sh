#!/bin/sh
# Installs, upgrades, removes and purges the packages on this machine, as root, and checks the
# result of each step. Leaves the machine as it was. lockd must not be installed. Where systemd does
# not run (in a container), the server is started by hand, and stand-ins for systemd's commands let
# the packages' scripts believe that it is the service.
#
#   packaging/test-deb.sh DIRECTORY-WITH-PACKAGES DIRECTORY-WITH-HIGHER-PACKAGES
set -eu

older=$1
newer=$2
fail() {
	echo "test-deb: $*" >&2
	exit 1
}
[ "$(id -u)" = 0 ] || fail "this needs root"
if dpkg -s lockd liblockd1 2> /dev/null | grep -q '^Status:'; then fail "a lockd package is already installed"; fi
if [ -e /etc/lockd ] || [ -e /usr/bin/lockd ]; then fail "lockd is already installed"; fi
directory=$(mktemp -d)
server=
holder=
clean_up() {
	for process in $holder $server; do kill "$process" 2> /dev/null || true; done
	dpkg --purge liblockd-dev liblockd1 lockd > /dev/null 2>&1 || true
	rm -rf "$directory"
}
trap clean_up EXIT
step() { echo "test-deb: $*"; }
# await WHAT COMMAND...: waits until the command succeeds.
await() {
	what=$1
	shift
	tries=100
	until "$@" > /dev/null 2>&1; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || fail "waited in vain for $what: $(cat "$directory/log" 2> /dev/null)"
		sleep 0.1
	done
}
# Starts the installed server by hand, with these options, and waits until it listens.
start() {
	lockd serve --config /etc/lockd/lockd.toml --listen "message+unix:$directory/message.sock" --user lockd \
		--state-dir "$directory/state" --first-start "$@" 2> "$directory/log" &
	server=$!
	await "the server to start" grep -q 'listening on' "$directory/log"
}
if [ -d /run/systemd/system ]; then has_systemd=yes; else has_systemd=no; fi

step "install"
dpkg -i "$older"/*.deb > /dev/null
for package in lockd liblockd1 liblockd-dev; do
	[ -z "$(dpkg --verify $package)" ] || fail "the installed files of $package differ from the package"
done
[ "$(lockd --version)" = "$(/usr/bin/lockd --version)" ] || fail "lockd is not in the path"
getent passwd lockd > /dev/null || fail "there is no user lockd"
ldconfig -p | grep -q 'liblockd\.so\.1 ' || fail "the loader does not know liblockd"
man -w lockd > /dev/null || fail "there is no manual page"
systemd-analyze verify lockd.service lockd-lockd.socket lockd-glockd.socket lockd-message.socket ||
	fail "systemd does not accept the units"
systemctl --quiet is-enabled lockd.service || fail "the server is not enabled"

step "run, with the installed configuration and user"
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
start
[ "$(stat -c %U "/proc/$server")" = lockd ] || fail "the server does not run as the user lockd"
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
	step "(systemd does not run: a server started by hand is the service)"
fi

step "upgrade, with a changed configuration, while a command holds a lock"
if [ $has_systemd = no ]; then
	# In a /run of its own, in which systemd seems to run.
	mkdir -p "$directory/run/systemd/system" "$directory/run/lockd" "$directory/stand-ins"
	chown lockd "$directory/run/lockd"
	for command in systemctl deb-systemd-invoke; do
		printf '#!/bin/sh\necho "%s $*" >> "%s"\n' $command "$directory/asked" > "$directory/stand-ins/$command"
		chmod 755 "$directory/stand-ins/$command"
	done
	start --control "$directory/run/lockd/control"
	export LOCKD_SERVER="unix:$directory/message.sock"
	main=$server
else
	main=${before#MainPID=}
fi
lockd run nightly -- sleep 60 &
holder=$!
await "the lock to be held" sh -c 'lockd list | grep -q nightly'
held=$(lockd list)
echo 'locks-max = 1000' >> /etc/lockd/lockd.toml
if [ $has_systemd = no ]; then
	unshare --mount sh -c 'mount --bind "$1/run" /run && export PATH="$1/stand-ins:$PATH" && shift && dpkg -i "$@"' \
		sh "$directory" "$newer"/*.deb > "$directory/installed" || fail "$(cat "$directory/installed")"
	grep -q 'systemctl .*is-active lockd.service' "$directory/asked" || fail "the scripts have not looked for the service"
	if grep -q 'deb-systemd-invoke' "$directory/asked"; then fail "the server was restarted: $(cat "$directory/log")"; fi
	grep -q 'nobody was served for' "$directory/log" || fail "the server was not upgraded: $(cat "$directory/log")"
else
	dpkg -i "$newer"/*.deb > /dev/null
	systemctl is-active --quiet lockd.service || fail "the upgraded service does not run"
	[ "$before" = "$(systemctl show -p MainPID lockd.service)" ] || fail "the server was restarted, not upgraded in place"
fi
case $(readlink "/proc/$main/exe") in *deleted*) fail "the old server still runs" ;; esac
kill -0 "$holder" 2> /dev/null || fail "the upgrade has ended a command that held a lock"
[ "$(lockd list | cut -c 1-40)" = "$(echo "$held" | cut -c 1-40)" ] || fail "the lock has changed: $held; $(lockd list)"
tail -n 1 /etc/lockd/lockd.toml | grep -q 'locks-max = 1000' || fail "the upgrade has changed the configuration"
systemctl --quiet is-enabled lockd.service || fail "the upgraded server is not enabled"
kill "$holder"
wait "$holder" || true
holder=
if [ $has_systemd = no ]; then
	kill "$server"
	wait "$server" || fail "the upgraded server did not stop cleanly"
	server=
fi

step "remove"
dpkg -r liblockd-dev liblockd1 lockd > /dev/null
[ ! -e /usr/bin/lockd ] || fail "the program is still there"
[ -e /etc/lockd/lockd.toml ] || fail "the configuration was removed before the purge"
if [ $has_systemd = yes ] && systemctl is-active --quiet lockd.service; then fail "the service still runs"; fi

step "install again, purge"
dpkg -i "$newer"/lockd_*.deb > /dev/null
[ "$(readlink -f /etc/systemd/system/lockd.service 2> /dev/null)" != /dev/null ] || fail "the service is still masked"
dpkg --purge lockd > /dev/null
left=$(find / -xdev \( -path /proc -o -path /tmp -o -path /var/lib/dpkg/info -o -path "$PWD" \) -prune -o \
	\( -name 'lockd.service' -o -name 'lockd-*.socket' -o -path /etc/lockd -o -path '*/lockd.service.dsh*' \
	-o -path /var/lib/lockd -o -path /var/lib/private/lockd -o -path /usr/bin/lockd \) -print)
left=$(echo "$left" | grep -v "/packaging/" || true)
[ -z "$left" ] || fail "this is left: $left"
if getent passwd lockd > /dev/null; then fail "the user lockd is left"; fi
step "success"
