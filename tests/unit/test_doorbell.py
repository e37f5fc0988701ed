"""The bell between the service and the workers of one home."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from uuid import uuid4

import pytest

from taskcenter_adapter.doorbell import LONGEST, hang_up, ring


def test_a_ring_is_heard_once_for_each(tmp_path: Path) -> None:
    hung = hang_up(tmp_path)
    assert hung is not None
    bell, take_down = hung
    one, other = str(uuid4()), str(uuid4())
    ring(tmp_path, one)
    ring(tmp_path, other)
    assert [bell.recv(LONGEST).decode(), bell.recv(LONGEST).decode()] == [one, other]
    with pytest.raises(BlockingIOError):
        bell.recv(LONGEST)
    take_down()
    assert not list((tmp_path / "run").iterdir())
    ring(tmp_path, "x")


def test_a_bell_that_nobody_hears_is_taken_away_or_left_full(tmp_path: Path) -> None:
    ring(tmp_path, "x")  # no home yet
    killed = tmp_path / "run" / "worker-1.bell"
    killed.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
        gone.bind(str(killed))
    hung = hang_up(tmp_path)
    assert hung is not None
    for _ in range(2000):  # more than a socket keeps
        ring(tmp_path, "x")
    assert [p.name for p in killed.parent.iterdir()] == [f"worker-{os.getpid()}.bell"]
    hung[1]()


def test_a_path_that_is_too_long_has_no_bell(tmp_path: Path) -> None:
    assert hang_up(tmp_path / ("x" * 120)) is None
