"""A run whose process is gone is told to Prefect; one that lives is left alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from taskcenter_adapter.orphans import close_orphans, present


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


def leave(home: Path, pid: int, created: float) -> Path:
    note = home / "run" / "processes" / "r-1"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps([pid, created]))
    return note


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
