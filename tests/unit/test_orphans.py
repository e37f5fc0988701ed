"""A run whose process is gone is told to Prefect; one that lives is left alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from taskcenter_adapter.orphans import close_orphans, hand_over, present, process_started


class Told:
    """A Prefect server that knows one run."""

    def __init__(self, state: str | None = "RUNNING") -> None:
        self.state = state
        self.told: list[tuple[str, str]] = []

    def find_run(self, run_id: str) -> dict[str, Any] | None:
        return {"id": run_id, "state_type": self.state} if self.state else None

    def set_run_state(self, run_id: str, kind: str, message: str = "") -> None:
        self.told.append((run_id, kind))


def close(home: Path, told: Told) -> list[str]:
    gateway: Any = told
    return close_orphans(home, gateway)


def leave(home: Path, pid: int, created: float, mark: str = "", run_id: str = "r-1") -> Path:
    note = home / "run" / "processes" / run_id
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps([pid, created, mark]))
    return note


OURSELVES = f"{os.getpid()}@{process_started(os.getpid())}"


def test_a_run_at_work_is_left_alone_and_leaves_no_note(tmp_path: Path) -> None:
    told = Told()
    with present(tmp_path, "r-1"):
        assert close(tmp_path, told) == []
    assert told.told == []
    assert list((tmp_path / "run" / "processes").iterdir()) == []


@pytest.mark.parametrize("created", [0.0, psutil.Process().create_time() + 1])
def test_a_dead_process_or_another_one_with_its_number(tmp_path: Path, created: float) -> None:
    note, told = leave(tmp_path, os.getpid(), created), Told()
    assert close(tmp_path, told) == ["r-1"]
    assert told.told == [("r-1", "CRASHED")]
    assert not note.exists()
    assert close(tmp_path, told) == []


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED", None])
def test_a_run_that_is_over_or_unknown_is_not_touched(tmp_path: Path, state: str | None) -> None:
    note, told = leave(tmp_path, 2**22, 1.0), Told(state)
    assert close(tmp_path, told) == []
    assert told.told == []
    assert not note.exists()


def test_a_damaged_note_is_a_dead_process(tmp_path: Path) -> None:
    note, told = leave(tmp_path, 1, 1.0), Told()
    note.write_text("not a note")
    assert close(tmp_path, told) == ["r-1"]


def test_a_run_whose_worker_lives_is_left_to_it(tmp_path: Path) -> None:
    note, told = leave(tmp_path, 2**22, 1.0, f"{OURSELVES}/r-1"), Told()
    assert close(tmp_path, told) == []
    assert note.exists()
    hand_over(tmp_path, "r-1")
    hand_over(tmp_path, "no-note")
    assert close(tmp_path, told) == ["r-1"]


def test_another_process_with_the_number_of_the_worker(tmp_path: Path) -> None:
    note, told = leave(tmp_path, 2**22, 1.0), Told()
    note.write_text(json.dumps([2**22, 1.0, "1@0/r-1"]))  # another process has the worker's number now
    assert close(tmp_path, told) == ["r-1"]


def test_a_composite_inside_a_run_is_closed_with_its_process(tmp_path: Path) -> None:
    """The worker watches the run around it and does not know of the inner one."""
    leave(tmp_path, 2**22, 1.0, f"{OURSELVES}/outer", "inner")
    told = Told()
    assert close(tmp_path, told) == ["inner"]


def test_a_run_that_was_asked_to_be_cancelled_ends_so(tmp_path: Path) -> None:
    leave(tmp_path, 2**22, 1.0)
    told = Told("CANCELLING")
    assert close(tmp_path, told) == ["r-1"]
    assert told.told == [("r-1", "CANCELLED")]


@pytest.mark.parametrize(("how", "left"), [(KeyboardInterrupt, 1), (ValueError, 0)])
def test_a_run_broken_off_leaves_its_note(tmp_path: Path, how: type[BaseException], left: int) -> None:
    with pytest.raises(how), present(tmp_path, "r-1"):
        raise how
    assert len(list((tmp_path / "run" / "processes").iterdir())) == left
