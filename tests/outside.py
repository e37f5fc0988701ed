"""Cases written by other projects, read where they lie and never copied into this one. (spec 9.2)"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = "TASKCENTER_OUTSIDE_CASES"


def outside(name: str) -> Path:
    """The file ``name``; where it is absent the test is skipped with that reason, and fails when CI is set."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    file = Path(os.environ.get(FOLDER) or default) / name
    if not file.is_file():
        reason = f"the outside cases {name} are not there: set {FOLDER} to the folder that holds them"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return file


def outside_rows(name: str) -> list[dict[str, Any]]:
    """Every row of a ``.jsonl.gz`` file."""
    with gzip.open(outside(name), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    assert rows, f"{name} holds no case"
    return rows
