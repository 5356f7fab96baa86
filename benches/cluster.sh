#!/bin/sh
# What the active server of a cluster costs, compared with a single server with a state directory:
# both are measured in turns, with lockd bench. Prints the median of the ratios of each setting; above
# 1 is good for the requests, below 1 for the processor time.
#
#     benches/cluster.sh [PROGRAM] [ROUNDS] [SECONDS]
#
# Needs etcd and python3. Everything runs on loopback and ends with this script.
set -eu
program=${1:-target/release/lockd} rounds=${2:-12} seconds=${3:-0.7}
directory=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || true; wait; rm -rf "$directory"' EXIT
trap 'exit 1' INT TERM

free_ports() {
    python3 -c 'import socket
sockets = [socket.socket() for _ in range(6)]
for one in sockets: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in sockets))'
}
# shellcheck disable=SC2046
set -- $(free_ports)
etcd=$1 peers=$2 single=$3 active=$4 pages=$5 other_pages=$6

etcd --data-dir "$directory/etcd" --log-level error --logger zap \
    --listen-client-urls "http://127.0.0.1:$etcd" --advertise-client-urls "http://127.0.0.1:$etcd" \
    --listen-peer-urls "http://127.0.0.1:$peers" --initial-advertise-peer-urls "http://127.0.0.1:$peers" \
    --initial-cluster "default=http://127.0.0.1:$peers" 2>"$directory/etcd.log" &
pids=$!
"$program" serve --first-start --state-dir "$directory/state" --listen "message://127.0.0.1:$single" \
    --http "127.0.0.1:$other_pages" 2>"$directory/single.log" &
single_pid=$! pids="$pids $!"
"$program" serve --first-start --cluster "etcd://127.0.0.1:$etcd/bench" --listen "message://127.0.0.1:$active" \
    --http "127.0.0.1:$pages" 2>"$directory/active.log" &
active_pid=$! pids="$pids $!"

python3 - "$program" "$rounds" "$seconds" "$single:$single_pid" "$active:$active_pid" "$pages" <<'PYTHON'
import json, statistics, subprocess, sys, time, urllib.request

program, rounds, seconds, *servers, pages = sys.argv[1:]
deadline = time.monotonic() + 60
while True:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{pages}/healthz").read()
        break
    except OSError as error:
        if time.monotonic() > deadline:
            sys.exit(f"the server does not become active: {error}")
        time.sleep(0.1)

def measure(server, options):
    port, pid = server.split(":")
    command = [program, "bench", "--server", f"message://127.0.0.1:{port}", "--pid", pid, "-r", "1", "-t", seconds]
    printed = subprocess.run(command + ["--json"] + options, check=True, capture_output=True).stdout
    figures = json.loads(printed)["servers"][0]["median"]
    return figures["requestsPerSecond"], figures["serverCpu"]

print("connections × depth   requests   processor time   (active server : single server)")
for connections, depth in ((1, 1), (16, 1), (16, 32)):
    options = ["-c", str(connections), "-d", str(depth)]
    ratios = []
    for round in range(int(rounds)):
        # Whoever is first in a round may be lucky: they take turns.
        order = servers if round % 2 == 0 else servers[::-1]
        found = {server: measure(server, options) for server in order}
        (single, single_cpu), (active, active_cpu) = (found[server] for server in servers)
        ratios.append((active / single, active_cpu / single_cpu))
    requests, cpu = (statistics.median(column) for column in zip(*ratios))
    print(f"{connections:>7} × {depth:<12} {requests:>9.3f} {cpu:>16.3f}")
PYTHON
