"""What every driver in Python needs: reading commands, decoding names, writing outcomes, and the
commands that are the same for every client: in-background, fork, fork-sleep. The driver has the
abilities, and a function that carries out all other commands. ../../README.md describes them."""

import os
import sys
import threading
import time
from urllib.parse import unquote_to_bytes


def name_of(word):
    """Decodes a name; returns bytes."""
    return b"" if word == '""' else unquote_to_bytes(word)


def seconds_of(word):
    """A time in seconds; None for `forever`."""
    return None if word == "forever" else int(word) / 1000


def say(line):
    # One write for each line, so that those of two threads never mix.
    os.write(1, (" ".join(line.splitlines()) + "\n").encode(errors="replace"))


def outcome_of(carry_out, line):
    command, *words = line.split(" ")
    try:
        return carry_out(command, words)
    except Exception as problem:  # The contract has an outcome for what nobody expects.
        return f"error {type(problem).__name__}: {problem}"


def answer_in_child(carry_out, line):
    child = os.fork()
    if child == 0:
        say(outcome_of(carry_out, line))
        sys.exit(0)
    # The next command finds that the child has ended.
    os.waitpid(child, 0)


def fork_sleep(seconds):
    """Forks a child that inherits the session and uses nothing of it."""
    child = os.fork()
    if child == 0:
        time.sleep(seconds)
        sys.exit(0)
    say(f"ok {child}")


def start_in_background(carry_out, line):
    # The call may end at once, and its line must come after this one.
    say("ok")
    call = lambda: say("background " + outcome_of(carry_out, line))
    threading.Thread(target=call, daemon=True).start()


def converse(can, cannot, carry_out):
    """Says what the client can do, then carries out commands until the standard input ends.

    `can` is a line of abilities, `cannot` has a reason for each ability that the client lacks.
    `carry_out` takes a command and its words, and returns the outcome."""
    say("conformance 1")
    say(f"can {can}")
    for ability, reason in cannot.items():
        say(f"cannot {ability} {reason}")
    say("ready")
    for line in sys.stdin:
        command, _, rest = line.rstrip("\n").partition(" ")
        if command == "in-background":
            start_in_background(carry_out, rest)
        elif command == "fork":
            answer_in_child(carry_out, rest)
        elif command == "fork-sleep":
            fork_sleep(seconds_of(rest))
        else:
            say(outcome_of(carry_out, line.rstrip("\n")))
