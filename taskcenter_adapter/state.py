"""What a running center wrote down of itself, in ``<home>/run/state.json``: where its database and servers are.

A second shell, the worker's runs and the command line need no settings thanks to it. It imports next to nothing:
every command reads it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

__all__ = ["clear_state", "read_state", "state_file", "write_state"]

_KEY = secrets.token_urlsafe(24)


def state_file(home: Path) -> Path:
    return home / "run" / "state.json"


def read_state(home: Path) -> dict[str, Any] | None:
    """What the center that runs on ``home`` wrote down; None when none runs."""
    try:
        state: dict[str, Any] = json.loads(state_file(home).read_text(encoding="utf-8"))
        alive = psutil.Process(int(state["pid"])).create_time() == state["pidCreated"]
    except (OSError, ValueError, KeyError, psutil.Error):
        return None
    return state if alive else None


def write_state(home: Path, state: Mapping[str, Any]) -> None:
    """Readable by this user alone: ``key`` tells the service that a request comes from one who may read it."""
    file = state_file(home)
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_suffix(f".{os.getpid()}")
    own = {"pid": os.getpid(), "pidCreated": psutil.Process().create_time(), "key": _KEY}
    half.touch(mode=0o600)
    half.write_text(json.dumps({**own, **state}, indent=2), encoding="utf-8")
    half.rename(file)


def clear_state(home: Path) -> None:
    state_file(home).unlink(missing_ok=True)
