"""Carries out a comparison: finds the differing keys, fetches the rows behind them, writes and applies the script."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blocks.connections import Connection
from taskcenter.context import RunContext
from taskcenter.errors import StepFailed

from ..database.quoting import qualified
from ..files import job_file
from .canonical import Canon, Form
from .canonical_rows import canonical_chunks
from .canonical_sql import postgresql_text
from .compare_script import Detail, Script, Spool, detail, sample_of, statements, write_script
from .compare_sql import can_join, differing_ranges, fingerprint, joined
from .compare_streams import Difference, key_reader, merged
from .compare_tables import Pair, find_pair, order_by
from .lines import Chunk
from .pg_copy import copy_out
from .side import Guard, Side, guarded, in_database, open_reader, open_writer
from .transfer import same_place
from .verify import is_hashable, row_hash

if TYPE_CHECKING:
    from ..data_compare_sync import DataComparePayload, TableRef

__all__ = ["compare"]

_SHOWN_SCRIPT = 500_000


def compare(payload: DataComparePayload, ctx: RunContext) -> dict[str, Any]:
    """The output of ``data_compare_sync``, without its executor."""
    source = in_database(ctx.connection(payload.source.connection), payload.source.database, "source")
    target = in_database(ctx.connection(payload.target.connection), payload.target.database, "target")
    with (
        guarded(ctx, payload.timeout_seconds, "the comparison") as guard,
        tempfile.TemporaryDirectory(prefix="compare-", dir=ctx.temp_dir) as folder,
    ):
        return _Comparison(payload, ctx, source, target, guard, Path(folder)).run()


class _Comparison:
    """One run."""

    def __init__(
        self, payload: DataComparePayload, ctx: RunContext, source: Connection, target: Connection, guard: Guard,
        folder: Path,
    ) -> None:  # fmt: skip
        self.payload, self.ctx, self.guard, self.folder = payload, ctx, guard, folder
        self.source, self.target = source, target
        self.together = same_place(source, target)
        self.warnings: list[str] = []
        self.rows = (0, 0)
        self.expected = 0
        self._next = 0.0

    def run(self) -> dict[str, Any]:
        spool = Spool(self.folder)
        try:
            with ExitStack() as stack:
                left = stack.enter_context(open_reader(self.source, "source"))
                right = stack.enter_context(open_reader(self.target, "target"))
                stack.enter_context(self.guard.holding(left))
                stack.enter_context(self.guard.holding(right))
                with self._explained(left, right):
                    result, script, before, pair = self._compare(left, right, spool)
        finally:
            spool.close()
        if self.payload.apply_script:
            self._apply(result, script, before, pair)
        summary = result["summary"]
        self.ctx.summary(
            f"{summary['missingInTarget']:,} missing, {summary['extraInTarget']:,} extra, "
            f"{summary['changed']:,} changed" + (", applied" if result["applied"] else "")
        )
        return result

    def _compare(
        self, left: Side, right: Side, spool: Spool
    ) -> tuple[dict[str, Any], Script | None, tuple[Any, Any] | None, Pair]:
        pair = find_pair(self.payload, left, right)
        self.expected = sum(t.row_estimate or 0 for t in (pair.source, pair.target))
        self._check_size(left, right, pair)
        differences, algorithm, one = self._differences(left, right, pair)
        if one:
            right = left
        for difference in differences:
            spool.add(difference)
        if self.payload.float_tolerance and any(c.form is Form.FLOAT for c in pair.source_canons):
            spool = self._tolerated(left, right, pair, spool)
        if algorithm == "sql":
            self.rows = (self._count(left, pair, True), self._count(left, pair, False))
        before = None
        if self.payload.apply_script:
            before = (fingerprint(left, pair, True), fingerprint(right, pair, False))
        samples, script = self._details(left, right, pair, spool)
        return self._result(pair, spool, samples, script, algorithm), script, before, pair

    def _check_size(self, left: Side, right: Side, pair: Pair) -> None:
        if self.payload.max_rows is None:
            return
        for side, is_left in ((left, True), (right, False)):
            rows = self._count(side, pair, is_left)
            if rows > self.payload.max_rows:
                raise StepFailed(
                    f"{pair.table(is_left).label} has {rows:,} rows, more than maxRows ({self.payload.max_rows:,}) "
                    "allows: raise it, leave it out, or narrow the comparison with where",
                    error_type="too_many_rows",
                )

    def _count(self, side: Side, pair: Pair, left: bool) -> int:
        return int(side.value(pair.reading(left).sql("count(*)", side.dialect)))

    def _differences(self, left: Side, right: Side, pair: Pair) -> tuple[Iterator[Difference], str, bool]:
        """The differing rows, by which algorithm, and whether one side alone did it."""
        wanted = self.payload.algorithm
        if wanted in ("auto", "sql") and self.together:
            why = can_join(pair, left.dialect)
            if not why:
                return joined(left, pair), "sql", True
            if wanted == "sql":
                self.warnings.append(f"compared by merge instead of sql: {why}")
        elif wanted == "sql":
            raise StepFailed(
                "the algorithm sql needs both tables in one database; these are two: use auto, merge or checksum",
                error_type="configuration",
            )
        if wanted == "checksum":
            ranges, source_rows, target_rows = differing_ranges(left, right, pair)
            if ranges is not None:
                self.rows = (source_rows, target_rows)
                return self._in_ranges(left, right, pair, ranges), "checksum", False
            self.warnings.append("the tables differ nearly everywhere: all rows were read")
        return self._merge(left, right, pair, "", "", self._counted), "merge", False

    def _in_ranges(
        self, left: Side, right: Side, pair: Pair, ranges: Sequence[tuple[str, str]]
    ) -> Iterator[Difference]:
        for here, there in ranges:
            yield from self._merge(left, right, pair, here, there, lambda *_: None)

    def _merge(
        self, left: Side, right: Side, pair: Pair, here: str, there: str, counted: Callable[[int, int], None]
    ) -> Iterator[Difference]:
        hashable = left.dialect == right.dialect == "postgresql" and is_hashable(left, right, pair.values)
        streams = [_stream(side, pair, is_left, condition, hashable) for side, is_left, condition in (
            (left, True, here), (right, False, there)
        )]  # fmt: skip
        key = key_reader(pair.source_canons[: pair.width])
        # an error of one side leaves the other in the middle of its rows, where nothing can be rolled back
        with closing(streams[0]), closing(streams[1]):
            yield from merged(streams[0], streams[1], key, pair.width, self.guard, counted)

    def _counted(self, source_rows: int, target_rows: int) -> None:
        self.rows = (source_rows, target_rows)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 1.0
            done = source_rows + target_rows
            percent = min(99.0, 100.0 * done / self.expected) if self.expected else 0.0
            total = max(self.expected, done) if self.expected else None
            self.ctx.progress(percent, f"{done:,} rows read", done=done, total=total)

    def _tolerated(self, left: Side, right: Side, pair: Pair, spool: Spool) -> Spool:
        """Without the rows whose floats differ by no more than is allowed, and nothing else."""
        folder = self.folder / "tolerated"
        folder.mkdir()
        kept = Spool(folder)
        forms = [c.form for c in pair.source_canons[pair.width :]]
        for found, difference in zip(detail(spool.read(), pair, left, right, self.guard), spool.read(), strict=True):
            if found.kind == "changed" and all(
                forms[n] is Form.FLOAT and _near(found, n, self.payload.float_tolerance) for n in found.changed()
            ):
                continue
            kept.add(difference)
        return kept

    def _details(self, left: Side, right: Side, pair: Pair, spool: Spool) -> tuple[list[dict[str, Any]], Script | None]:
        """The samples, and the script when one is wanted."""
        payload = self.payload
        wanted = bool(payload.file_path or payload.apply_script or payload.include_script_in_result)
        samples: list[dict[str, Any]] = []
        shown = {"missing": 0, "extra": 0, "changed": 0}
        if not wanted:
            first = _first(spool.read(), payload.sample_limit)
            samples = [sample_of(found, pair) for found in detail(first, pair, left, right, self.guard)]
            return samples, None
        script, add, end = write_script(payload, pair, right.dialect, self.folder)
        for found in detail(spool.read(), pair, left, right, self.guard):
            if shown[found.kind] < payload.sample_limit:
                shown[found.kind] += 1
                samples.append(sample_of(found, pair))
            if not add(found):
                break
        end()
        if script.truncated:
            self.warnings.append(
                f"the script ends after {payload.statement_limit:,} statements (statementLimit) and is never applied"
            )
        return samples, script

    def _result(
        self, pair: Pair, spool: Spool, samples: list[dict[str, Any]], script: Script | None, algorithm: str
    ) -> dict[str, Any]:
        counts = spool.counts
        made: dict[str, Any] = {
            "source": self._described(self.payload.source, self.source, pair.source.label),
            "target": self._described(self.payload.target, self.target, pair.target.label),
            "algorithm": algorithm,
            "keyColumns": [a.name for a, _ in pair.keys],
            "compareColumns": [a.name for a, _ in pair.values],
            "summary": {
                "sourceRows": self.rows[0],
                "targetRows": self.rows[1],
                "missingInTarget": counts["missing"],
                "extraInTarget": counts["extra"],
                "changed": counts["changed"],
                "unchanged": self.rows[0] - counts["missing"] - counts["changed"],
            },
            "statementCounts": {**(script.counts if script else dict.fromkeys(("inserts", "updates", "deletes"), 0)),
                                "total": script.total if script else 0},
            "samples": samples,
            "warnings": self.warnings,
            "truncated": script.truncated if script else False,
            "applied": False,
        }  # fmt: skip
        if script is None:
            return made
        if self.payload.file_path:
            path = job_file(self.payload.file_path, self.ctx, "filePath")
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.part")
            shutil.copyfile(script.path, part)
            part.replace(path)
            made["filePath"] = str(path)
        if self.payload.include_script_in_result:
            if script.path.stat().st_size > _SHOWN_SCRIPT:
                self.warnings.append("the script is too large to stand in the result: name a filePath")
            else:
                made["script"] = script.path.read_text(encoding="utf-8", errors="surrogateescape")
        return made

    def _described(self, ref: TableRef, connection: Connection, label: str) -> dict[str, Any]:
        return {"connection": ref.connection, "database": connection.database, "table": label}

    def _apply(self, result: dict[str, Any], script: Script | None, before: tuple[Any, Any] | None, pair: Pair) -> None:
        """Run the statements in one transaction, if both tables still are what was compared."""
        assert script is not None
        assert before is not None
        if script.truncated:
            raise StepFailed(
                f"the script has more than {self.payload.statement_limit:,} statements (statementLimit), and a "
                "truncated script is never applied: raise the limit, or set it to 0. Nothing was changed",
                error_type="truncated",
                output=result,
            )
        if not script.total:
            result["applied"] = True
            return
        with ExitStack() as stack:
            writer = stack.enter_context(open_writer(self.target))
            stack.enter_context(self.guard.holding(writer))
            with self._explained(writer, writer):
                writer.run({"postgresql": "BEGIN", "mysql": "START TRANSACTION", "sqlite": "BEGIN IMMEDIATE"}[
                    writer.dialect
                ])  # fmt: skip
                if writer.dialect == "postgresql":
                    name = qualified(pair.target.schema, pair.target.name, "postgresql")
                    writer.run(f"LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE")
                self._check_moved(writer, pair, before)
                applied = {"inserts": 0, "updates": 0, "deletes": 0}
                for kind, sql in statements(self.folder):
                    self.guard.check()
                    rows = writer.run(sql)
                    # MySQL counts rows that an UPDATE found as they should be as none
                    if rows != 1 and not (writer.dialect == "mysql" and kind == "updates" and rows == 0):
                        raise StepFailed(
                            f"a statement changed {rows} rows instead of one, so all was undone:\n  {sql[:200]}",
                            error_type="moved",
                        )
                    applied[kind] += 1
                self.guard.check()
                writer.run("COMMIT")
        result["applied"] = True
        result["appliedCounts"] = {**applied, "total": sum(applied.values())}

    def _check_moved(self, writer: Side, pair: Pair, before: tuple[Any, Any]) -> None:
        with open_reader(self.source, "source") as reader, self.guard.holding(reader):
            source = fingerprint(reader, pair, True)
        target = fingerprint(writer, pair, False, locked=True)
        moved = [
            name for name, then, now in (("source", before[0], source), ("target", before[1], target)) if then != now
        ]
        if moved:
            raise StepFailed(
                f"the {' and the '.join(moved)} changed while they were compared, so the script was not applied: "
                "compare again, best while nobody writes",
                error_type="moved",
            )

    @contextmanager
    def _explained(self, left: Side, right: Side) -> Iterator[None]:
        errors: tuple[type[Exception], ...] = (left.errors, right.errors, OSError, StepFailed)
        try:
            yield
        except errors as error:
            what = f"comparing {self.payload.source.table} with {self.payload.target.table} failed, nothing was changed"
            known = self.guard.explain(error, what)
            if known is error:
                raise
            raise known from error


def _first(differences: Iterator[Difference], limit: int) -> Iterator[Difference]:
    """The first ``limit`` of each kind."""
    seen = {"missing": 0, "extra": 0, "changed": 0}
    for kind, key in differences:
        if seen[kind] < limit:
            seen[kind] += 1
            yield kind, key
        elif min(seen.values()) >= limit:
            return


def _near(found: Detail, place: int, tolerance: float) -> bool:
    if found.source is None or found.target is None:
        return False
    a, b = found.source[place], found.target[place]
    try:
        return a is not None and b is not None and abs(float(a) - float(b)) <= tolerance
    except ValueError:
        return False


def _stream(side: Side, pair: Pair, left: bool, condition: str, hashable: bool) -> Generator[Chunk, None, None]:
    """Lines of key fields and what stands for the rest of the row: PostgreSQL's own hash, or all values."""
    columns: Sequence[Canon] = pair.canons(left)
    keys = columns[: pair.width]
    reading = pair.reading(left, order_by(side, keys), condition)
    if not hashable:
        yield from canonical_chunks(side, reading, columns)
        return
    expressions = [postgresql_text(c) for c in keys]
    values = [c.column for c in columns[pair.width :]]
    expressions.append(row_hash(values) if values else "0")
    for data in copy_out(side.driver, f"COPY ({reading.sql(', '.join(expressions), 'postgresql')}) TO STDOUT"):
        yield data, data.count(b"\n")
