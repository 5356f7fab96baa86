"""A client that many would write in an afternoon, and a driver for it. It is NOT safe, and nobody
should use it: it is here so that the trials have a client to convict. ../../README.md says what
they look for, and docs/protocol.md, section 5, what this client leaves out."""

import json
import socket
import struct
import time

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
        try:
            self.send(command, parameters)
        except OSError:
            # The server has been restarted: connect again.
            self.connect()
            self.send(command, parameters)
        return self.receive()["result"]

    def send(self, command, parameters):
        self.last_id += 1
        request = {"command": command, "parameters": parameters, "id": self.last_id}
        body = json.dumps(request).encode()
        self.socket.sendall(struct.pack(">I", len(body)) + body)

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


class Doubt(Exception):
    """The connection has ended, and the session is not resumed yet."""


class Resuming(Client):
    """A session that resumes, by someone who has read what `resume` does, and no more: it closes the
    connection that has ended, claims what it is releasing and the mode that it is giving up, and
    tries for ever."""

    def __init__(self, address, owner, timeout):
        self.modes, self.tokens = {}, {}
        self.attempt, self.lost = 0, None
        super().__init__(address, owner, timeout)

    def connect(self):
        self.open()
        self.send("hello", {"resumable": True})
        self.greeted(self.receive()["result"])

    def open(self):
        unix = isinstance(self.address, str)
        self.socket = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        self.socket.settimeout(2)
        self.socket.connect(self.address)

    def greeted(self, result):
        self.told = result.get("resume")
        self.timeout = result["keepalive"]["deadPeerTimeout"]
        self.socket.settimeout(None)
        self.send("identify", {"name": self.owner})
        self.receive()

    def is_connected(self):
        try:
            return self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def step(self):
        if self.lost:
            raise ConnectionError(self.lost)
        if self.is_connected():
            return
        if not self.told:
            self.lost = "the connection has ended"
            raise ConnectionError(self.lost)
        try:
            self.socket.close()
            if self.held:
                self.resume()
            else:
                self.connect()
        except (OSError, ValueError, LookupError) as problem:
            self.socket.close()
            raise Doubt(problem or "the connection has ended") from problem
        if self.lost:
            raise ConnectionError(self.lost)

    def resume(self):
        self.open()
        self.attempt += 1
        locks = [{"lockName": name, "token": self.tokens[name], **self.modes[name]} for name in self.held]
        self.send("resume", dict(self.told, deadPeerTimeout=self.timeout, attempt=self.attempt, locks=locks))
        result = self.receive()["result"]
        if result["status"] in ("ended", "unknown", "invalid"):
            self.lost = "the server has ended the session"
        elif result["status"] == "ok":
            self.greeted(result)
        else:
            raise ConnectionError(f"not now: {result}")

    def call(self, command, patience=0, **parameters):
        """`patience` is for how long it tries to resume, in seconds; None: for ever."""
        end = None if patience is None else time.monotonic() + patience
        while True:
            try:
                self.step()
                self.send(command, parameters)
                return self.receive()["result"]
            except OSError:
                # The next step finds the reason.
                if self.lost:
                    raise
            except Doubt:
                if end is not None and time.monotonic() >= end:
                    raise
                time.sleep(0.05)

    def acquire(self, name, mode, seconds):
        result = self.call("lock", patience=seconds, lockName=name, timeLimit=seconds, **mode)
        if result["status"] == "ok":
            self.held.add(name)
            self.modes[name], self.tokens[name] = mode, result["token"]
        return result

    def convert(self, name, mode, seconds):
        result = self.call("convert", patience=seconds, lockName=name, timeLimit=seconds, **mode)
        if result["status"] == "ok":
            self.modes[name], self.tokens[name] = mode, result["token"]
        return result

    def release(self, name):
        is_released = self.call("unlock", patience=0, lockName=name)["status"] == "ok"
        self.held.discard(name)
        return is_released

    def has(self, name):
        self.step()
        return super().has(name)

    def certain(self, seconds):
        end = time.monotonic() + seconds
        while True:
            try:
                return self.step()
            except Doubt:
                if time.monotonic() >= end:
                    raise
            time.sleep(0.05)

    def close(self):
        if self.is_connected() and not self.lost:
            self.send("bye", {})
        self.held.clear()
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
            if command == "state":
                self.client.step()
                return "alive"
            if command == "certain":
                self.client.certain(seconds_of(words[0]))
                return "alive"
            if command == "close":
                self.client.close()
                self.client = None
                return "ok"
            return "error this command is not known"
        except Doubt as problem:
            return f"doubt {problem}"
        except OSError as problem:
            return f"lost {problem}"

    def connect(self, owner, timeout, url):
        url, _, asks_for = url.partition("?")
        kind = Resuming if asks_for == "resume" else Client
        scheme, _, rest = url.partition(":")
        host, _, port = rest.removeprefix("//").rpartition(":")
        try:
            self.client = kind(rest if scheme == "unix" else (host, int(port)), owner, timeout)
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
    "message unix wait limit-wait shared limit convert token orphaned check inspect fork deadlock resume",
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
