"""The snapshots of the in-memory store: the same promises without a database."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

from taskcenter.models import SchemaSnapshot

from .rows import clean_json, clean_text

__all__ = ["MemorySnapshots"]


class MemorySnapshots:
    """Kept for as long as the process lives. Safe for threads."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str], str] = {}
        self._turn = threading.Lock()

    def save(self, snapshot: SchemaSnapshot) -> SchemaSnapshot:
        structure = clean_json(snapshot.structure, "structure")
        texts = {k: clean_text(v) for k, v in snapshot if isinstance(v, str)}
        new = snapshot.model_copy(update={**texts, "structure": structure})
        key = (new.connection, new.database, new.schema_hash)
        with self._turn:
            if key in self._kept:
                old = SchemaSnapshot.model_validate_json(self._kept[key])
                if new.captured_at < old.captured_at:
                    return old
                new = old.model_copy(update={"captured_at": new.captured_at, "run_id": new.run_id})
            self._kept[key] = json.dumps(new.to_json())
            return SchemaSnapshot.model_validate_json(self._kept[key])

    def find(self, id: str) -> SchemaSnapshot | None:
        return next((s for s in self._all() if s.id == clean_text(id)), None)

    def latest(self, connection: str, database: str = "") -> SchemaSnapshot | None:
        wanted = (clean_text(connection), clean_text(database))
        found = [s for s in self._all() if (s.connection, s.database) == wanted]
        return max(found, key=lambda s: (s.captured_at, s.id), default=None)

    def before(self, snapshot: SchemaSnapshot) -> SchemaSnapshot | None:
        wanted, at = (clean_text(snapshot.connection), clean_text(snapshot.database)), snapshot.captured_at
        others = [s for s in self._all() if (s.connection, s.database) == wanted and s.id != clean_text(snapshot.id)]
        earlier = [s for s in others if s.first_captured_at < at]
        seen = {s.id: s.captured_at if s.captured_at < at else s.first_captured_at for s in earlier}
        return max(earlier, key=lambda s: (seen[s.id], s.id), default=None)

    def ids(self, beginning: str, *, limit: int = 2) -> Sequence[str]:
        return sorted(s.id for s in self._all() if s.id.startswith(clean_text(beginning)))[:limit]

    def page(self, connection: str | None = None, *, limit: int = 100, offset: int = 0) -> Sequence[SchemaSnapshot]:
        found = [s for s in self._all() if connection is None or s.connection == clean_text(connection)]
        found.sort(key=lambda s: s.id)
        found.sort(key=lambda s: s.captured_at, reverse=True)
        some = found[max(offset, 0) :][: max(limit, 0)]
        return [s.model_copy(update={"structure": {}}) for s in some]

    def _all(self) -> list[SchemaSnapshot]:
        with self._turn:
            return [SchemaSnapshot.model_validate_json(text) for text in self._kept.values()]
