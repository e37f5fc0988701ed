"""Where things are, read once from the environment. Documented in ``docs/settings.md``; a test compares the two."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import SetupError

__all__ = ["VARIABLES", "Settings", "patterns_file"]

PATTERNS_FILE = "redaction.txt"

VARIABLES: dict[str, str] = {
    "TASKCENTER_HOME": "Data directory (0700). Default ~/.taskcenter.",
    "TASKCENTER_DATABASE": "embedded (default), sqlite, or auto: which database `up` starts.",
    "TASKCENTER_DATABASE_URL": "A database of your own (postgresql:// or sqlite:///) instead of the embedded one.",
    "TASKCENTER_API_URL": "A running Task Center service that the command line should talk to.",
    "TASKCENTER_PORT": "Port of the Task Center service on 127.0.0.1. Default 8787.",
    "TASKCENTER_PREFECT_PORT": "Port of the Prefect server that `up` starts. Default 4200.",
    "TASKCENTER_PROJECT": "Folder that holds composites/ and task_types/ of your own. Default: the current folder.",
    "TASKCENTER_ALLOW_SHELL_TEXT": "0 switches off the `shell` text form of the shell task type (argv stays).",
    "TASKCENTER_FILE_ROOTS": "Further folders (absolute, parted by `:`) that backups and transfers may write files to.",
    "TASKCENTER_REDACTION_PATTERNS": "File of your own redaction patterns. Default redaction.txt in the home.",
    "TASKCENTER_MAX_STEPS": "Most steps one composite may have. Default 10000.",
    "TASKCENTER_SECRET_KEY": "The key of the secrets (several by commas), instead of secret.key in the home.",
    "TASKCENTER_CONNECTION_<NAME>": "A database connection by address, beside those saved as Prefect blocks.",
    "TASKCENTER_DEBUG": "1 shows the trace of an unexpected error on the command line.",
    "PREFECT_API_URL": "A Prefect server of your own; `up` then starts none.",
}


@dataclass(frozen=True)
class Settings:
    """The resolved settings of one process."""

    home: Path
    database: str = "auto"
    database_url: str | None = None
    api_url: str | None = None
    port: int = 8787
    prefect_port: int = 4200
    prefect_api_url: str | None = None
    project: Path = Path(".")
    allow_shell_text: bool = True
    max_steps: int = 10_000
    file_roots: tuple[Path, ...] = ()
    redaction_patterns: Path | None = None
    secret_key: str | None = field(default=None, repr=False)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read ``env`` (default: this process's). A value of the wrong kind is a SetupError that names it."""
        env = os.environ if env is None else env
        return cls(
            home=_home(env),
            database=_choice(env, "TASKCENTER_DATABASE", ("auto", "embedded", "sqlite")),
            database_url=env.get("TASKCENTER_DATABASE_URL") or None,
            api_url=env.get("TASKCENTER_API_URL") or None,
            port=_number(env, "TASKCENTER_PORT", 8787, 0, 65_535),
            prefect_port=_number(env, "TASKCENTER_PREFECT_PORT", 4200, 0, 65_535),
            prefect_api_url=env.get("PREFECT_API_URL") or None,
            project=Path(env.get("TASKCENTER_PROJECT") or ".").expanduser().absolute(),
            allow_shell_text=(env.get("TASKCENTER_ALLOW_SHELL_TEXT") or "1").lower() not in ("0", "false", "no"),
            max_steps=_number(env, "TASKCENTER_MAX_STEPS", 10_000, 1, 1_000_000),
            file_roots=_folders(env, "TASKCENTER_FILE_ROOTS"),
            redaction_patterns=patterns_file(env) if env.get("TASKCENTER_REDACTION_PATTERNS") else None,
            secret_key=env.get("TASKCENTER_SECRET_KEY") or None,
        )

    @property
    def patterns_file(self) -> Path:
        """Where the user's own redaction patterns stand, if there are any."""
        return self.redaction_patterns or self.home / PATTERNS_FILE


def patterns_file(env: Mapping[str, str] | None = None) -> Path:
    """The same for code that must not fail over other settings."""
    env = os.environ if env is None else env
    named = env.get("TASKCENTER_REDACTION_PATTERNS")
    return Path(named).expanduser().absolute() if named else _home(env) / PATTERNS_FILE


def _home(env: Mapping[str, str]) -> Path:
    return Path(env.get("TASKCENTER_HOME") or "~/.taskcenter").expanduser().absolute()


def _number(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name) or str(default)
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise SetupError(f"{name}={text!r} must be a whole number from {low} to {high}")
    return value


def _choice(env: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    value = env.get(name) or choices[0]
    if value not in choices:
        raise SetupError(f"{name}={value!r} must be one of {', '.join(choices)}")
    return value


def _folders(env: Mapping[str, str], name: str) -> tuple[Path, ...]:
    found = tuple(Path(part).expanduser() for part in (env.get(name) or "").split(os.pathsep) if part)
    wrong = next((path for path in found if not path.is_absolute()), None)
    if wrong is not None:
        raise SetupError(f"{name}: {wrong} must be an absolute path")
    return found
