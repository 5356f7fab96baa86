"""A safe client of lockd's protocol `message`, in one file: Python 3.8 or later, on Linux.

docs/protocol.md, section 5, has the reasons. A session is one connection and one owner: threads,
and parts of a program that must exclude each other, need a session each. A session that is lost
stays lost, with all its locks: only the caller knows what that means for the work."""

import contextlib
import json
import os
import socket
import struct
import threading
import time
from typing import Any, Dict, Iterator, NamedTuple, Optional, Set, Union
from urllib.parse import urlsplit

ANSWER = 10.0  # Seconds for an answer that the server can give at once.
Name = Union[str, bytes]  # A text means its UTF-8.
Mode = Union[str, int]  # "exclusive", "shared", or a number: at most so many holders.
Time = Optional[float]  # In seconds. 0 does not wait; None waits until the lock is free.
OPEN: Set["Session"] = set()  # A session that the program forgets must not end, and free its locks.


class LockError(Exception):
    """The base of the errors of this module."""


class LockLost(LockError):
    """The session has ended, and others may have its locks. Stop the work that they protect."""


class Forked(LockLost):
    """The session belongs to the parent of this process. Connect again here."""


class NotGranted(LockError):
    """A no that changes nothing. `status` is "timeout" ("cancelled" if the server was late),
    "deadlock", "already" (this session has the lock), "notFound" (it has not), "invalid" or
    "refused"; `cause` "grace" means: try later."""

    def __init__(self, status: str, reason: Optional[str] = None, cause: Optional[str] = None):
        super().__init__(reason or status)
        self.status, self.cause = status, cause


class Grant(NamedTuple):
    token: int  # Pass it to what the lock protects, which can then refuse lower ones.
    orphaned: bool  # The last exclusive holder vanished: look for work that is half done.


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # It runs while the machine sleeps, too.


def connect(url: str, secret: Optional[str] = None, timeout: float = 10.0) -> "Session":
    """Opens a session at tcp://HOST:PORT or unix:PATH. Raises LockError, or OSError if the host is
    not known. The time of the resolver is not limited."""
    parts, deadline, problem = urlsplit(url), now() + timeout, ""
    if parts.scheme not in ("tcp", "unix"):
        raise ValueError(f"{url} is not tcp://HOST:PORT or unix:PATH")
    places: list = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", url[len("unix:"):])]
    if parts.scheme == "tcp":
        places = socket.getaddrinfo(parts.hostname, parts.port or 20934, type=socket.SOCK_STREAM)
    for tried, (family, kind, _, _, address) in enumerate(places):
        # An address that swallows all packets must leave time for the others.
        end = now() + (deadline - now()) / (len(places) - tried)
        sock = socket.socket(family, kind)
        try:
            keep_alive(sock, 7)
            sock.settimeout(max(0, end - now()))
            sock.connect(address)
            return Session(sock, secret, end - now())
        except (OSError, LockLost) as failure:
            sock.close()
            problem = str(failure)
    raise LockError(f"{url}: {problem}")


def keep_alive(sock: socket.socket, b: int) -> None:
    """Lets the kernel give the server up after b seconds of silence (sections 1 and 5)."""
    if sock.family == socket.AF_UNIX:
        return
    interval = max(1, b // 7)
    idle = b - -(-4 * b // 7) // interval * interval
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in {socket.TCP_NODELAY: 1, socket.TCP_KEEPINTVL: interval,
                          socket.TCP_KEEPIDLE: idle, socket.TCP_KEEPCNT: -(-(b - idle) // interval),
                          socket.TCP_USER_TIMEOUT: 1000 * b}.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, 44, 1000)  # TCP_RTO_MAX_MS, new in Linux 6.15.


class Session:
    """What connect() returns. `with` closes it; if the block raises, the next holders of its locks
    are told that they are orphaned. When its descriptor is readable, check() learns of a loss.

    A call raises NotGranted for a no, after which the session is as before, and LockLost when the
    session has ended. Any other exception that interrupts a call (Ctrl-C) ends the session."""

    def __init__(self, sock: socket.socket, secret: Optional[str], patience: float):
        self._sock, self._pid, self._busy = sock, os.getpid(), threading.Lock()
        self._lost: Optional[str] = None  # Why the session has ended.
        self._held: Dict[bytes, Grant] = {}
        self._replies: Dict[int, dict] = {}
        self._buffer, self._last_id, self._b = bytearray(), 0, 7
        OPEN.add(self)
        with self._call():
            hello = self._ask("hello", {"authToken": secret} if secret else {}, patience)
            if hello["status"] != "ok" or "keepalive" not in hello:
                raise LockLost(hello.get("reason") or "this is no server of locks")
            self._features = set(hello["features"])
            self._b = 7 * hello["keepalive"]["deadPeerTimeout"] // 25
            keep_alive(sock, self._b)

    def acquire(self, name: Name, mode: Mode = "exclusive", timeout: Time = None) -> Grant:
        """Acquires a lock, which is held until release(), also if its Grant is forgotten."""
        key = key_of(name)
        wanted = {"limit" if isinstance(mode, int) else "mode": mode, "timeLimit": timeout}
        patience = float("inf") if timeout is None else timeout + 1
        with self._call():
            if key in self._held:
                raise NotGranted("already", "this session holds the lock already")
            if wanted.keys() - self._features:  # An older server would ignore it.
                raise NotGranted("refused", "the server cannot do this")
            result = self._ask("lock", {"lockNameHex": key.hex(), **wanted}, patience)
            if result["status"] != "ok":
                raise NotGranted(result["status"], result.get("reason"), result.get("cause"))
            token = result["token"]
            if type(token) is not int or not 0 <= token < 1 << 53 or "already" in result:
                raise LockLost("the server grants what it cannot grant")
            self._held[key] = Grant(token, result.get("orphaned") is True)
            return self._held[key]

    def release(self, name: Name) -> None:
        """Do not ignore LockLost here: the work may have overlapped with that of others."""
        key = key_of(name)
        with self._call():
            if self._held.pop(key, None) is None:
                raise NotGranted("notFound", "this session does not hold the lock")
            if self._ask("unlock", {"lockNameHex": key.hex()})["status"] != "ok":
                raise LockLost("the server does not confirm a release")

    def check(self, name: Name = "") -> bool:
        """Whether the lock is held now. Raises LockLost if the session has ended. Ask before each
        step that must not overlap with the work of others. A later loss shows only in the token."""
        with self._call():
            return key_of(name) in self._held

    @contextlib.contextmanager
    def lock(self, name: Name, mode: Mode = "exclusive", timeout: Time = None) -> Iterator[Grant]:
        """Holds a lock for the block of a `with`."""
        grant = self.acquire(name, mode, timeout)
        try:
            yield grant
        except BaseException:
            with contextlib.suppress(LockError):  # The failure of the work is not to be hidden.
                self.release(name)
            raise
        self.release(name)

    def close(self, orderly: bool = True) -> None:
        """Frees all locks; nothing in the program may still believe that it holds one. If the work
        is half done, `orderly=False` lets the next holders know."""
        with self._call():
            self._end("the session was closed", bye=orderly and "bye" in self._features)

    def fileno(self) -> int:
        return self._sock.fileno()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        # The failure of the block is not to be hidden.
        with contextlib.suppress(*([] if kind is None else [LockError])):
            self.close(orderly=kind is None)

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        """Surrounds every call. The body runs only if the session is alive."""
        if self._pid != os.getpid():
            raise Forked("the session belongs to the parent of this process")
        if not self._busy.acquire(blocking=False):
            raise LockError("another thread is using this session: connect again")
        try:
            if self._lost:
                raise LockLost(self._lost)
            self._read()
            yield
        except BaseException as problem:
            if not isinstance(problem, NotGranted):  # Nobody knows any more what is held.
                self._end(str(problem) or repr(problem))
            if isinstance(problem, LockError) or not isinstance(problem, Exception):
                raise
            raise LockLost(f"the connection has failed: {problem!r}") from problem
        finally:
            self._busy.release()

    def _end(self, why: str, bye: bool = False) -> None:
        # The session is marked before the server can see its end, and give the locks to others.
        self._lost = self._lost or why
        with contextlib.suppress(OSError):
            if bye:
                self._send("bye", {}, limit=0)
        with contextlib.suppress(OSError), self._sock:  # It is closed, whatever becomes of this.
            self._sock.shutdown(socket.SHUT_RDWR)
        OPEN.discard(self)

    def _ask(self, command: str, parameters: dict, patience: float = ANSWER) -> dict:
        number = self._send(command, parameters)
        result = self._await(number, patience)
        if result is None and command == "lock":
            # It is taken back; only its own reply says whether the grant was faster.
            self._send("cancel", {"id": number})
            result = self._await(number, ANSWER)
        if result is None:
            raise LockLost("the server does not answer")
        return result

    def _send(self, command: str, parameters: dict, limit: float = ANSWER) -> int:
        self._last_id += 1
        body = json.dumps(dict(command=command, parameters=parameters, id=self._last_id)).encode()
        self._sock.settimeout(limit)
        self._sock.sendall(struct.pack(">I", len(body)) + body)
        return self._last_id

    def _await(self, number: int, patience: float) -> Optional[dict]:
        self._replies.clear()  # Of the last call, a reply to `cancel` may have come late.
        deadline, wait = now() + patience, 0.0
        while True:
            late = now() >= deadline  # Looked at first: the process may have been stopped since.
            self._read(wait)
            if number in self._replies or late:
                return self._replies.pop(number, None)
            wait = max(0, min(5, deadline - now()))

    def _read(self, wait: float = 0) -> None:
        """Waits a while for something to read, reads until nothing is left, and returns if the
        connection is alive: only then a reply that was read is true, since the end of the
        connection may be right behind it."""
        with contextlib.suppress(BlockingIOError, socket.timeout):
            while True:
                self._sock.settimeout(wait)
                piece, wait = self._sock.recv(65536), 0
                if not piece:
                    raise LockLost("the server has ended the connection")
                self._buffer += piece
                self._take_messages()
        if self._sock.family != socket.AF_UNIX:
            # A cut network shows only in silence. After 2·B + 2.5 s the locks may soon be freed.
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
            if info[0] != 1 or min(struct.unpack_from("=II", info, 52)) > 2000 * self._b + 2500:
                raise LockLost("the server cannot be reached")

    def _take_messages(self) -> None:
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[:4], "big")
            if end > 16 << 20:
                raise LockLost("the server speaks another protocol")
            if len(self._buffer) < end:
                return
            message = json.loads(self._buffer[4:end].decode())
            del self._buffer[:end]
            if message.get("id") is None and "error" in message:
                raise LockLost(f"the server says: {message['error']}")
            if type(message.get("id")) is int:
                self._replies[message["id"]] = message["result"]


def key_of(name: Name) -> bytes:
    return name.encode() if isinstance(name, str) else bytes(name)


# In a child that is forked, a copy of the socket would keep the parent's locks held.
os.register_at_fork(after_in_child=lambda: [session._sock.close() for session in OPEN])
