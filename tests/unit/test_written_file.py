"""A file that appears whole or not at all, also when several begin at once."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.task_types.database import written_file
from flows.task_types.database.written_file import writing


def test_a_part_that_another_writer_takes_for_left_over_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one looks for parts without a lock just when ours has none yet."""
    lock: Callable[..., Any] = fcntl.flock
    seen: list[int] = []

    def late(file: Any, how: int) -> None:
        if how == fcntl.LOCK_EX and len(seen) < 2:
            seen.append(how)
            monkeypatch.setattr(written_file.fcntl, "flock", lock)
            written_file._remove_left_over(tmp_path)
            monkeypatch.setattr(written_file.fcntl, "flock", late)
        lock(file, how)

    monkeypatch.setattr(written_file.fcntl, "flock", late)
    with writing(tmp_path / "copy.sql") as file:
        file.write(b"select 1;\n")
    assert seen == [fcntl.LOCK_EX, fcntl.LOCK_EX]
    assert (tmp_path / "copy.sql").read_bytes() == b"select 1;\n"
    assert [path.name for path in tmp_path.iterdir()] == ["copy.sql"]


def test_a_part_at_work_is_not_removed(tmp_path: Path) -> None:
    with writing(tmp_path / "copy.sql") as file:
        written_file._remove_left_over(tmp_path)
        assert file.part.exists()
        (tmp_path / f".old.sql.1{written_file._PART}").write_bytes(b"half")
        written_file._remove_left_over(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {file.part.name}
