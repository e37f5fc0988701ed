"""The keys that secrets are encrypted with, which never stand in the database. (spec 8.3)

``TASKCENTER_SECRET_KEY`` holds one or several (by commas), else the file ``secret.key`` (0600) in the home does, one
to a line. The first encrypts; the others still decrypt what was written before a rotation. In the file the key before
the first one stays until the next rotation: a process that has just read it may be about to write with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Collection
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from taskcenter.errors import SetupError
from taskcenter.redaction import register_secret
from taskcenter.settings import Settings

__all__ = ["FILE", "Keys", "load_keys", "new_key_file", "retire_keys"]

FILE = "secret.key"
_VARIABLE = "TASKCENTER_SECRET_KEY"
_KEPT = 2


class Keys:
    """A ring of keys. ``where`` says where they come from, for sentences."""

    def __init__(self, keys: list[str], where: str) -> None:
        self.where = where
        self._by_id: dict[str, Fernet] = {}
        for key in keys:
            try:
                self._by_id[_id(key)] = Fernet(key.encode())
                register_secret(key)
            except ValueError:
                raise SetupError(f"{where} holds a line that is no key: 32 bytes as URL-safe base64 are one") from None
        if not self._by_id:
            raise SetupError(f"{where} holds no key: 32 bytes as URL-safe base64 are one")
        self.current = next(iter(self._by_id))

    def encrypt(self, name: str, value: str) -> str:
        """The value, bound to its name: a row that is moved to another name does not open."""
        text = json.dumps([name, value], ensure_ascii=True)
        return self._by_id[self.current].encrypt(text.encode()).decode()

    def decrypt(self, name: str, ciphertext: str, key_id: str) -> str:
        """Raises SetupError that names both keys when it is the wrong one."""
        key = self._by_id.get(key_id)
        if key is None:
            have = ", ".join(self._by_id)
            raise SetupError(
                f"the secret {name!r} was encrypted with the key {key_id}, but {self.where} holds {have}: put the "
                f"right key there (beside the other one), or set the secret again: taskcenter secret set {name}"
            )
        try:
            owner, value = json.loads(key.decrypt(ciphertext.encode()))
        except (InvalidToken, ValueError):
            raise SetupError(f"the stored secret {name!r} is damaged or was changed: set it again") from None
        if owner != name:
            raise SetupError(f"the stored secret {name!r} was written for another name: set it again")
        return str(value)


def load_keys(settings: Settings, *, create: bool = False) -> Keys:
    """The keys of this center. ``create``: make the file when there is none. Raises SetupError."""
    if settings.secret_key:
        return Keys([key.strip() for key in settings.secret_key.split(",") if key.strip()], _VARIABLE)
    file = settings.home / FILE
    if not file.exists():
        if not create:
            raise SetupError(f"there is no key for secrets: neither {_VARIABLE} is set nor {file} there")
        new_key_file(file)
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise SetupError(f"{file} may be read by others (mode {mode:o}): chmod 600 it, and rotate the key")
    keys = [line.strip() for line in file.read_text("ascii").splitlines() if line.strip()]
    if not keys:
        raise SetupError(f"{file} is empty: put the key back that the secrets were encrypted with")
    return Keys(keys, str(file))


def new_key_file(file: Path) -> Keys:
    """Put a new key before those in ``file``, in one step: a crash leaves the old file or the new one."""
    old = file.read_text("ascii") if file.exists() else ""
    return _write(file, f"{Fernet.generate_key().decode()}\n{old}", fresh=not old)


def retire_keys(file: Path, used: Collection[str]) -> Keys:
    """Leave the first key, the one before it, and those of the ids in ``used``."""
    keys = file.read_text("ascii").split()
    left = [key for place, key in enumerate(keys) if place < _KEPT or _id(key) in used]
    return _write(file, "".join(f"{key}\n" for key in left), fresh=False)


def _write(file: Path, text: str, *, fresh: bool) -> Keys:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=f"{file.name}.", suffix=".new", dir=file.parent)  # 0600 from the start
    beside = Path(name)
    try:
        with open(number, "w", encoding="ascii") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        if fresh:
            with contextlib.suppress(FileExistsError):  # two first secrets at once: the key that came first stays
                os.link(beside, file)
        else:
            beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
    return Keys(file.read_text("ascii").split(), str(file))


def _id(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:8]
