"""A client that many would write in an afternoon, and a driver for it. It is NOT safe, and nobody
should use it: it is here so that the trials have a client to convict. ../../README.md says what
they look for, and docs/protocol.md, section 5, what this client leaves out."""

import json
import socket
import struct

from conformance import converse, name_of, seconds_of


class Client:
    def __init__(self, address, owner, timeout):
        self.address, self.owner, self.timeout = address, owner, timeout
        self.held = set()
        self.last_id = 0
        self.connect()

    def connect(self):
        if isinstance(self.address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(self.address)
        else:
            self.socket = socket.create_connection(self.address, self.timeout)
            self.socket.settimeout(None)
        self.call("identify", name=self.owner)

    def call(self, command, **parameters):
        self.last_id += 1
        request = {"command": command, "parameters": parameters, "id": self.last_id}
        body = json.dumps(request).encode()
        try:
            self.socket.sendall(struct.pack(">I", len(body)) + body)
        except OSError:
            # The server has been restarted: connect again.
            self.connect()
            self.socket.sendall(struct.pack(">I", len(body)) + body)
        return self.receive()["result"]

    def receive(self):
        (length,) = struct.unpack(">I", self.read(4))
        return json.loads(self.read(length))

    def read(self, length):
        received = b""
        while len(received) < length:
            more = self.socket.recv(length - len(received))
            if not more:
                raise ConnectionError("the server has closed the connection")
            received += more
        return received

    def acquire(self, name, mode, seconds):
        result = self.call("lock", lockName=name, timeLimit=seconds, **mode)
        if result["status"] == "ok":
            self.held.add(name)
        return result

    def convert(self, name, mode, seconds):
        return self.call("convert", lockName=name, timeLimit=seconds, **mode)

    def release(self, name):
        self.held.discard(name)
        return self.call("unlock", lockName=name)["status"] == "ok"

    def has(self, name):
        return name in self.held

    def inspect(self, name):
        return self.call("inspect", lockName=name)

    def close(self):
        self.held.clear()
        self.call("bye")
        self.socket.close()


class Driver:
    client = None

    def carry_out(self, command, words):
        try:
            if command == "connect":
                return self.connect(name_of(words[0]).decode(), seconds_of(words[1]), words[2])
            if self.client is None:
                return "lost there is no session"
            name = name_of(words[0]).decode() if words else None
            if command in ("acquire", "convert"):
                change = getattr(self.client, command)
                return granted(change(name, mode_of(words[1]), seconds_of(words[2])))
            if command == "release":
                return "ok" if self.client.release(name) else "not-held"
            if command == "check":
                return "held" if self.client.has(name) else "not-held"
            if command == "inspect":
                state = self.client.inspect(name)
                return f"{state['mode']} {state['waiters']}" if state["mode"] else "free"
            if command == "close":
                self.client.close()
                self.client = None
                return "ok"
            return "error this command is not known"
        except OSError as problem:
            return f"lost {problem}"

    def connect(self, owner, timeout, url):
        scheme, _, rest = url.partition(":")
        host, _, port = rest.removeprefix("//").rpartition(":")
        try:
            self.client = Client(rest if scheme == "unix" else (host, int(port)), owner, timeout)
            return "ok"
        except OSError as problem:
            return f"failed {problem}"


def mode_of(word):
    if word.startswith("at-most:"):
        return {"limit": int(word.removeprefix("at-most:"))}
    return {"mode": word}


def granted(result):
    status = result["status"]
    if status == "ok":
        orphaned = " orphaned" if result.get("orphaned") else ""
        return "already" if result.get("already") else f"granted token={result['token']}{orphaned}"
    if status == "notFound":
        return "not-held"
    return status if status in ("timeout", "deadlock") else f"refused {result}"


converse(
    "message unix wait limit-wait shared limit convert token orphaned check inspect fork deadlock",
    {
        "tls": "it has plain sockets",
        "secret": "it knows no secrets",
        "several": "it has one server",
        "set": "it locks one name at a time",
        "background": "it makes one call at a time",
        "cancel": "it makes one call at a time",
        "notice": "it does not look at the connection between calls",
        "bounded": "it awaits an answer for as long as it takes",
        "names": "its names are text",
        "zero-byte": "its names are text",
    },
    Driver().carry_out,
)
