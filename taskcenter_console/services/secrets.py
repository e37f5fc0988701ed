"""Secrets: set, list, delete, change the key. Values go in and never come out again. (spec 8.3)"""

from __future__ import annotations

import re
from typing import Any

from taskcenter.clock import utc_now
from taskcenter.errors import NotFound, Problem, ValidationFailed
from taskcenter.redaction import register_secret
from taskcenter.redaction.registered import LEAST_LENGTH_IN_TEXT
from taskcenter_adapter.keys import FILE, load_keys, new_key_file, retire_keys
from taskcenter_adapter.secrets import SecretRow, SqlSecrets
from taskcenter_adapter.store import need_sql

from .center import Caller, Center

__all__ = ["KEEP", "delete", "list_secrets", "put", "rotate_key"]

KEEP = "***"
"""What forms show instead of a value; sent back, it keeps the value."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,98}[a-z0-9])?")
_MOST = 64 * 1024


def _rows(center: Center) -> SqlSecrets:
    return need_sql(center.store, "keeps no secrets").secrets


def put(center: Center, name: str, value: str, caller: Caller) -> dict[str, Any]:
    """A new version of the secret ``name``; ``***`` keeps the one there is. Raises ValidationFailed."""
    rows = _rows(center)
    if not _NAME.fullmatch(name):
        text = "must be 1 to 100 of a-z, 0-9, - and _, and begin and end with a letter or digit"
        raise ValidationFailed("the secret", [Problem("name", "name", text)])
    if value == KEEP:
        if rows.latest(name) is None:
            raise NotFound(f"there is no secret {name!r} whose value could be kept", name=name)
        return _described(rows, name)
    if not LEAST_LENGTH_IN_TEXT <= len(value) <= _MOST:
        text = f"must have {LEAST_LENGTH_IN_TEXT} to {_MOST:,} characters: a shorter one would not be masked in texts"
        raise ValidationFailed("the secret", [Problem("length", "value", text)])
    register_secret(value)
    keys = load_keys(center.settings, create=not rows.all())  # a key that is lost is not replaced in silence

    def entry(version: int) -> Any:
        return caller.entry(
            "secret_set",
            object=f"{name}, a secret",  # not after the word: redaction would take the name for the value
            message=f"{name}: the secret was set (version {version})",
            metadata={"name": name, "version": version},
        )

    rows.put(name, keys.encrypt(name, value), keys.current, utc_now(), caller.actor, entry)
    return _described(rows, name)


def list_secrets(center: Center) -> list[dict[str, Any]]:
    """Names, versions and when they were set, never a value."""
    found: dict[str, list[SecretRow]] = {}
    for row in _rows(center).all():
        found.setdefault(row.name, []).append(row)
    return [_shown(versions) for versions in found.values()]


def delete(center: Center, name: str, caller: Caller) -> None:
    """All versions of it. Raises NotFound."""
    entry = caller.entry(
        "secret_deleted",
        object=f"{name}, a secret",
        message=f"{name}: the secret was deleted",
        metadata={"name": name},
    )
    _rows(center).delete(name, entry)


def rotate_key(center: Center, caller: Caller) -> dict[str, Any]:
    """A new key, and every secret encrypted with it; the one before it goes with the next rotation.

    With the key in the environment: put the new one before the old one, restart, call this, take the old one away.
    Interrupted at any point, every secret can still be read. Raises SetupError when a secret cannot be.
    """
    rows = _rows(center)
    file = center.settings.home / FILE
    own_file = not center.settings.secret_key
    old = load_keys(center.settings, create=not rows.all())
    for row in rows.all():
        old.decrypt(row.name, row.ciphertext, row.key_id)  # a wrong key is told before anything is changed
    keys = new_key_file(file) if own_file else old

    def fresh(row: SecretRow) -> tuple[str, str]:
        value = keys.decrypt(row.name, row.ciphertext, row.key_id)
        return keys.encrypt(row.name, value), keys.current

    def entry(count: int) -> Any:
        return caller.entry(
            "secret_key_rotated",
            object="the key of the secrets",
            message=f"{count} stored values were encrypted with the key {keys.current}",
            metadata={"key": keys.current, "values": count},
        )

    count = rows.rewrite(fresh, entry)
    if own_file:
        retire_keys(file, {row.key_id for row in rows.all()})
    return {"key": keys.current, "values": count}


def _described(rows: SqlSecrets, name: str) -> dict[str, Any]:
    return _shown([row for row in rows.all() if row.name == name])


def _shown(versions: list[SecretRow]) -> dict[str, Any]:
    newest = versions[0]
    return {
        "name": newest.name,
        "version": newest.version,
        "value": KEEP,
        "setAt": newest.created_at.isoformat(),
        "setBy": newest.created_by,
        "keptVersions": len(versions),
    }
