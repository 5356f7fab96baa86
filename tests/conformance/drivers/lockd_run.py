"""Drives `lockd run`, whose path is in the environment. A lock is held for as long as its command
runs: the command writes its token when it has been started, and ends when its input does."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "python"))
from conformance import converse, name_of, seconds_of

COMMAND = ["sh", "-c", 'echo "token=$LOCKD_TOKEN${LOCKD_ORPHANED:+ orphaned}"; exec cat']


class Driver:
    def __init__(self):
        self.server = None
        self.environment = dict(os.environ)
        self.held = {}  # The runs whose command has been started, by name.
        self.waiting = set()  # The runs whose command has not been started yet.

    def carry_out(self, command, words):
        if command == "connect":
            return self.connect(seconds_of(words[1]), words[2:])
        if command == "acquire":
            return self.acquire(name_of(words[0]), words[1], seconds_of(words[2]))
        if command == "release":
            return self.release(name_of(words[0]))
        if command == "notice":
            return self.notice(seconds_of(words[0]))
        if command == "cancel":
            return self.cancel()
        if command == "close":
            return self.close()
        return "error this command is not known"

    def run(self, options, name, command):
        """Starts `lockd run`; it stays in this process group, and ends with it."""
        program = [os.environ["LOCKD"], "run", "--server", self.server, *options, name, "--", *command]
        return subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment
        )

    def connect(self, seconds, urls):
        """There is no session. Whether the server takes this client shows when a command is run."""
        authority = os.environ.get("CONFORMANCE_CA")
        tls = f"?ca={authority}" if authority else ""
        self.server = ",".join(url + tls if url.startswith("tls:") else url for url in urls)
        if "CONFORMANCE_SECRET" in os.environ:
            self.secret = tempfile.NamedTemporaryFile()
            Path(self.secret.name).write_text(os.environ["CONFORMANCE_SECRET"])
            self.environment["LOCKD_AUTH_TOKEN_FILE"] = self.secret.name
        self.options = [f"--connect-timeout={seconds}", "--grace=0"]  # The command needs no time to end.
        if len(urls) > 1:
            return "ok"  # One of them is enough, and a command would try only the one of its name.
        tried = self.run([*self.options, "--nonblock"], "conformance-connect", ["true"])
        _, message = tried.communicate()
        return "ok" if tried.returncode in (0, 75) else f"failed {text(message)}"

    def acquire(self, name, mode, seconds):
        if self.server is None:
            return "lost there is no server: close was called"
        options = list(self.options)
        if mode == "shared":
            options.append("--shared")
        elif mode != "exclusive":
            options.append(mode.replace("at-most:", "--at-most="))
        if seconds is not None:
            options.append(f"--wait={seconds}")
        run = self.run(options, name, COMMAND)
        self.waiting.add(run)
        started = run.stdout.readline()
        self.waiting.discard(run)
        if started:
            self.held[name] = run
            return f"granted {started.decode().strip()}"
        return self.not_started(run, name)

    def not_started(self, run, name):
        message = text(run.communicate()[1])
        if run.returncode in (75, 124):
            # A program knows what it has: the lock is busy because another run of it has it.
            return "already" if name in self.held and self.held[name].poll() is None else "timeout"
        if run.returncode == 69:
            return f"lost {message}"
        if run.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM):
            return "cancelled"
        return f"refused {message}" if run.returncode == 125 else f"error status {run.returncode}: {message}"

    def release(self, name):
        run = self.held.pop(name, None)
        if run is None:
            return "not-held"
        message = text(run.communicate()[1])  # This also ends the input of its command.
        if run.returncode == 76:
            return f"lost {message}"
        return "ok" if run.returncode == 0 else f"error status {run.returncode}: {message}"

    def notice(self, seconds):
        """When a lock is lost, `lockd run` ends its command, and then itself."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for run in self.held.values():
                if run.poll() == 76:
                    return "lost the command has been ended"
            time.sleep(0.01)
        return "alive"

    def cancel(self):
        for run in list(self.waiting):
            run.terminate()
        return "ok"

    def close(self):
        self.cancel()
        for name in list(self.held):
            self.release(name)
        self.server = None
        return "ok"


def text(message):
    return message.decode(errors="replace").strip()


driver = Driver()
converse(
    "message unix tls secret several wait limit-wait shared limit token orphaned background cancel notice"
    " bounded patient session-per-lock",
    {
        "convert": "a command has its lock in one mode",
        "set": "it acquires several names together, but also releases them together",
        "check": "it cannot be asked; it ends the command when the lock is lost, which `notice` waits for",
        "resume": "a command is not told that its lock is in doubt, so nothing can be asked then",
        "inspect": "it only runs commands",
        "fork": "there is no session that a child could inherit",
        "deadlock": "each command has a session of its own",
        "names": "its arguments can be neither empty nor begin with a dash",
        "zero-byte": "a zero byte ends an argument",
    },
    driver.carry_out,
)
driver.close()
