"""The driver of examples/python/lockd_client.py. ../../README.md is the contract."""

import os
import pathlib
import select
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[4] / "examples/python"))

from conformance import converse, name_of, seconds_of
from lockd_client import Forked, LockError, LockLost, NotGranted, connect


class Driver:
    session = None

    def carry_out(self, command, words):
        try:
            if command == "connect":
                return self.connect(seconds_of(words[1]), words[2])
            if self.session is None:
                return "lost there is no session"
            return getattr(self, command)(*words)
        except Forked as problem:
            return f"forked {problem}"
        except LockLost as problem:
            return f"lost {problem}"
        except NotGranted as problem:
            return refused(problem)
        except ValueError as problem:
            return f"invalid {problem}"

    def connect(self, timeout, url):
        try:
            self.session = connect(url, os.environ.get("CONFORMANCE_SECRET"), timeout)
            return "ok"
        except (LockError, OSError) as problem:
            return f"failed {problem}"

    def acquire(self, name, mode, wait):
        return granted(self.session.acquire(name_of(name), mode_of(mode), seconds_of(wait)))

    def release(self, name):
        self.session.release(name_of(name))
        return "ok"

    def check(self, name):
        return "held" if self.session.check(name_of(name)) else "not-held"

    def notice(self, time):
        readable, _, _ = select.select([self.session], [], [], seconds_of(time))
        if readable:
            self.session.check()
        return "alive"

    def close(self):
        self.session.close()
        self.session = None
        return "ok"


def mode_of(word):
    if word.startswith("at-most:"):
        return int(word[len("at-most:"):])
    return word


def granted(grant):
    return f"granted token={grant.token}" + (" orphaned" if grant.orphaned else "")


def refused(problem):
    if problem.status == "notFound":
        return "not-held"
    if problem.status == "cancelled":  # By the client itself, when its time was over.
        return "timeout"
    if problem.status in ("timeout", "deadlock", "already"):
        return problem.status
    return f"{problem.status if problem.status == 'invalid' else 'refused'} {problem}"


converse(
    "message unix secret wait limit-wait shared limit token orphaned check fork notice bounded "
    "names zero-byte deadlock",
    {
        "tls": "it has plain sockets",
        "convert": "it releases a lock and acquires it anew",
        "several": "it has one server",
        "set": "it locks one name at a time",
        "inspect": "it shows nothing of the locks of others",
        "background": "it makes one call at a time",
        "cancel": "it makes one call at a time; an exception in the waiting thread ends a wait",
        "resume": "a session of it is lost with its connection, which keeps it small",
        "patient": "it never connects again by itself",
        "session-per-lock": "all locks of a session are on one connection",
    },
    Driver().carry_out,
)
