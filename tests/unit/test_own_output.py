"""What code in a run's own process prints: masked, line by line, whoever writes in between."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from flows.running.own_output import masked_output
from taskcenter.redaction import MASK, register_secret

SECRET = "own output of a certain value"


@contextmanager
def masked(stream: io.StringIO) -> Iterator[io.StringIO]:
    with redirect_stdout(stream), masked_output(logging.Filter()):
        yield stream


def test_a_line_is_masked_whole() -> None:
    register_secret(SECRET)
    with masked(io.StringIO()) as real:
        print("is", SECRET[:9], end="")
        assert real.getvalue() == ""
        print(SECRET[9:])
        assert real.getvalue() == f"is {MASK}\n"


def test_a_progress_bar_is_seen_while_it_moves() -> None:
    with masked(io.StringIO()) as real:
        for percent in range(3):
            print(f"\r{percent} %", end="")
        assert real.getvalue() == "\r0 %\r1 %\r"
        print("\rdone\r\n", end="")
        assert real.getvalue().endswith("\r2 %\rdone\r\n")


def test_a_line_without_end_is_passed_on_at_last() -> None:
    with masked(io.StringIO()) as real:
        for _ in range(11):
            sys.stdout.write("x" * 100_000)
        assert len(real.getvalue()) == 1_100_000
        sys.stdout.write("y")
        assert len(real.getvalue()) == 1_100_000
    assert real.getvalue().endswith("xy")


def test_who_writes_in_the_middle_of_a_write_is_not_stopped() -> None:
    """A finalizer, a warning or a signal may, in the same thread; no text of either is lost."""

    class Interrupted(io.StringIO):
        begun = False

        def write(self, text: str) -> int:
            if text and not self.begun:
                self.begun = True
                print("in between")
                print("half", end=" ")
            return super().write(text)

    stream = Interrupted()

    def prints() -> None:
        with masked(stream):
            print("first\nsecond", end="")
            print(" line")

    thread = threading.Thread(target=prints, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert stream.getvalue() == "in between\nfirst\nhalf second line\n"
