#!/bin/sh
# Starts three etcd and two lockd on this machine, kills the active lockd under a job, and shows that
# the job keeps its lock. README.md says what happens, and what the variables mean. Everything that it
# starts ends with it.
set -eu

timeout=${DEAD_PEER_TIMEOUT:-25}
leader_timeout=${LEADER_TIMEOUT:-5}
here=$(dirname "$0")
if [ -n "${LOCKD:-}" ]; then
	lockd=$(command -v "$LOCKD") || { echo "LOCKD=$LOCKD is not a program" >&2; exit 1; }
else
	lockd=
	for candidate in "$here/../../target/release/lockd" "$here/../../target/debug/lockd" lockd; do
		lockd=$(command -v "$candidate" 2>/dev/null) && break
	done
	[ -n "$lockd" ] || { echo "there is no lockd: build it (cargo build --release), or name it in LOCKD" >&2; exit 1; }
fi
"$lockd" serve --help 2>/dev/null | grep -q -e '--cluster ' ||
	{ echo "$lockd has no option --cluster: build a newer one, or name it in LOCKD" >&2; exit 1; }
command -v etcd >/dev/null || { echo "there is no etcd (Debian: apt-get install etcd-server)" >&2; exit 1; }
# Options of the server in the environment would apply to both servers.
for name in $(env | sed -n 's/^\(LOCKD_[A-Z_]*\)=.*/\1/p'); do
	unset "$name"
done

directory=$(mktemp -d "${TMPDIR:-/tmp}/lockd-cluster.XXXXXX")

end() {
	trap - EXIT
	# Not in a subshell, which has no jobs.
	jobs -p >"$directory/running"
	kill $(cat "$directory/running") 2>/dev/null || true
	wait
	rm -rf "$directory"
}
trap end EXIT
trap 'exit 1' HUP INT TERM

say() {
	echo "$(date +%T)  $*"
}

# fail WHY: shows the logs, and ends.
fail() {
	say "$1" >&2
	tail -n 20 "$directory"/*.log >&2
	exit 1
}

# wait_for SECONDS WHAT COMMAND…: until the command succeeds.
wait_for() {
	attempts=$(($1 * 10))
	what=$2
	shift 2
	until "$@"; do
		attempts=$((attempts - 1))
		[ $attempts -gt 0 ] || fail "this has not happened in time: $what"
		sleep 0.1
	done
}

has_line() {
	grep -q "$1" "$directory/$2" 2>/dev/null
}

# --- Three etcd ------------------------------------------------------------------------------------

etcd_serves() {
	for member in 1 2 3; do
		has_line 'ready to serve client requests' "etcd$member.log" || return 1
	done
}

etcd_has_failed() {
	for process in $etcd; do
		kill -0 "$process" 2>/dev/null || return 0
	done
	return 1
}

etcd_serves_or_has_failed() {
	etcd_serves || etcd_has_failed
}

# client_port MEMBER, peer_port MEMBER
client_port() {
	echo $((port + $1))
}

peer_port() {
	echo $((port + 3 + $1))
}

start_etcd() {
	etcd=
	members=
	for member in 1 2 3; do
		members=$members${members:+,}m$member=http://127.0.0.1:$(peer_port $member)
	done
	for member in 1 2 3; do
		client=http://127.0.0.1:$(client_port $member)
		peer=http://127.0.0.1:$(peer_port $member)
		etcd --name m$member --data-dir "$directory/m$member" --listen-client-urls "$client" \
			--advertise-client-urls "$client" --listen-peer-urls "$peer" \
			--initial-advertise-peer-urls "$peer" --initial-cluster "$members" \
			--initial-cluster-token "$directory" --auto-compaction-retention 1h --pre-vote \
			>"$directory/etcd$member.log" 2>&1 &
		etcd="$etcd $!"
	done
	wait_for 60 "etcd serves" etcd_serves_or_has_failed
	etcd_serves
}

# Another program may use one of the ports: then others are tried.
port=$((12000 + $$ % 2000 * 10))
attempt=1
until start_etcd; do
	kill $etcd 2>/dev/null || true
	has_line 'address already in use' etcd1.log || has_line 'address already in use' etcd2.log ||
		has_line 'address already in use' etcd3.log || fail "etcd has ended"
	attempt=$((attempt + 1))
	[ $attempt -le 10 ] || fail "no free ports were found"
	rm -rf "$directory"/m?
	port=$((port + 10))
done
endpoints=127.0.0.1:$(client_port 1),127.0.0.1:$(client_port 2),127.0.0.1:$(client_port 3)
say "three etcd serve: $endpoints"

# --- Two lockd -------------------------------------------------------------------------------------

# start_lockd NUMBER [PORT]
start_lockd() {
	"$lockd" serve --cluster "etcd://$endpoints/example" --dead-peer-timeout "$timeout" \
		--leader-timeout "$leader_timeout" --listen "message://127.0.0.1:${2:-0}" --first-start \
		>>"$directory/lockd$1.log" 2>&1 &
	started=$!
}

# place NUMBER: where it listens.
place() {
	sed -n 's/.*listening on message:\/\///p' "$directory/lockd$1.log" | tail -n 1
}

# is_active NUMBER LINE: whether it has become active, by its log after this line.
is_active() {
	tail -n "+$2" "$directory/lockd$1.log" | grep -q 'this server is the active one'
}

one_is_active() {
	is_active 1 1 || is_active 2 1
}

start_lockd 1
process1=$started
start_lockd 2
process2=$started
wait_for 20 "both lockd listen" eval 'has_line "listening on" lockd1.log && has_line "listening on" lockd2.log'
wait_for 60 "one lockd is active" one_is_active
if is_active 1 1; then
	active=1 standby=2 victim=$process1
else
	active=2 standby=1 victim=$process2
fi
group=tcp://$(place 1),$(place 2)
say "two lockd run. Clients use $group"
say "active: lockd $active at $(place $active); standby: lockd $standby at $(place $standby)"

# --- A job, and a second one that waits for it -----------------------------------------------------

# job NAME COMMAND: with the lock `report`.
job() {
	"$lockd" run --server "$group" --grace 1 -w $((timeout * 2 + 60)) report -c "$2" >"$directory/$1.out" 2>"$directory/$1.log" &
	started=$!
}

# The job says each second with which token it holds the lock, until it may end.
job first "while [ ! -e '$directory/enough' ]; do echo \"token \$LOCKD_TOKEN\"; sleep 1; done"
first=$started
wait_for 60 "the first job runs" has_line token first.out
say "the first job has the lock: $(tail -n 1 "$directory/first.out")"
job second "echo \"token \$LOCKD_TOKEN\""
second=$started
"$lockd" list --server "$group"

# --- The active lockd is killed --------------------------------------------------------------------

kill -KILL "$victim"
say "lockd $active is killed"
wait_for 60 "lockd $standby takes over" is_active $standby 1
say "lockd $standby is active now"
"$lockd" cluster status --server "$group"
wait_for 60 "the first job's session resumes" has_line 'has resumed' first.log
sed 's/^/          /' "$directory/first.log"
lines=$(wc -l <"$directory/first.out")
more_lines() {
	[ "$(wc -l <"$directory/first.out")" -gt "$lines" ]
}
wait_for 20 "the first job goes on" more_lines
say "the first job goes on, and still has the lock: $(tail -n 1 "$directory/first.out")"
[ "$(sort -u "$directory/first.out" | wc -l)" -eq 1 ] || fail "its token has changed"
[ ! -s "$directory/second.out" ] || fail "the second job has run at the same time"
"$lockd" list --server "$group"

# A service manager starts the killed one again.
before=$(($(wc -l <"$directory/lockd$active.log") + 1))
start_lockd $active "$(place $active | sed 's/.*://')"
is_standby() {
	tail -n "+$before" "$directory/lockd$active.log" | grep -q 'the active server of the cluster'
}
wait_for 60 "lockd $active is a standby" is_standby
say "lockd $active is started again: $(tail -n "+$before" "$directory/lockd$active.log" |
	sed -n 's/.*INFO \] \(the active server.*\)/\1/p')"
"$lockd" cluster status --server "$group"

# --- The first job ends ----------------------------------------------------------------------------

touch "$directory/enough"
wait "$first" || fail "the first job has failed"
say "the first job has ended"
wait "$second" || fail "the second job has failed"
say "the second job has had the lock: $(cat "$directory/second.out")"
[ "$(sort -u "$directory/first.out")" != "$(cat "$directory/second.out")" ] || fail "it had the same token"
say "done"
