"""A PostgreSQL database as a script: what rows need, the rows by COPY, then keys, indexes, views, triggers, the rest.

All in one transaction, so that a restore is whole or nothing. Owners and privileges are not carried over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from .catalog import rows, scalar
from .dump_parts import Choice, Part, refuse, statement
from .literals import text_literal
from .model import Column, Sequence, Structure, Table, Trigger, View
from .order_postgresql import Node, above, below, in_order, read_needs
from .quoting import column_list, qualified, quote
from .reflect_postgresql import empty_search_path

__all__ = ["dump_postgresql"]

_PIECE = 1 << 16
_OWN = (
    "NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.classid = '{0}'::regclass AND e.objid = x.oid AND e.deptype = 'e') "
    "AND x.oid >= 16384"
)
_OTHERS = {
    "aggregates": f"SELECT count(*) FROM pg_proc x WHERE prokind = 'a' AND {_OWN.format('pg_proc')}",
    "operators": f"SELECT count(*) FROM pg_operator x WHERE {_OWN.format('pg_operator')}",
    "operator classes": f"SELECT count(*) FROM pg_opclass x WHERE {_OWN.format('pg_opclass')}",
    "casts": f"SELECT count(*) FROM pg_cast x WHERE {_OWN.format('pg_cast')}",
    "collations": f"SELECT count(*) FROM pg_collation x WHERE {_OWN.format('pg_collation')}",
    "text search configurations": f"SELECT count(*) FROM pg_ts_config x WHERE {_OWN.format('pg_ts_config')}",
    "large objects": "SELECT count(*) FROM pg_largeobject_metadata",
    "base types": "SELECT count(*) FROM pg_type x WHERE typtype = 'b' AND typcategory <> 'A' AND "
    + _OWN.format("pg_type"),
}


def dump_postgresql(
    connection: sa.Connection, structure: Structure, choice: Choice, include_data: bool
) -> Iterator[Part]:
    """See :func:`flows.task_types.database.dump.dump`."""
    with empty_search_path(connection):
        yield from _Dump(connection, structure, choice, include_data).parts()


class _Dump:
    def __init__(self, connection: sa.Connection, structure: Structure, choice: Choice, include_data: bool) -> None:
        self.connection, self.structure, self.choice, self.include_data = connection, structure, choice, include_data
        self.tables = {t.label: t for t in choice.tables}
        self.sequences = {s.label: s for s in structure.sequences}
        self.views = {v.label: v for v in structure.views}

    def parts(self) -> Iterator[Part]:
        self._check()
        needs = read_needs(self.connection)
        kept = self._kept(needs.all)
        after_rows = above((node for node in kept if node[0] == "view"), needs.before)
        order = in_order(kept, needs.before)
        yield from self._head()
        for node in order:
            if node not in after_rows:
                yield from self._make(node)
        yield from self._attach()
        if self.include_data:
            for table in self.choice.tables:
                yield from self._rows(table)
            yield from self._counters(kept)
        yield from self._owned(kept)
        yield from self._keys()
        for node in order:
            if node in after_rows:
                yield from self._make(node)
        yield from self._rest(kept)
        yield statement("COMMIT")

    def _check(self) -> None:
        problems = []
        for table in self.choice.tables:
            if table.options.get("kind") == "foreign":
                problems.append(f"the foreign table {table.label}")
            elif table.options.get("parents") and not table.options.get("bound"):
                problems.append(f"the table {table.label}, which inherits from {table.options['parents']}")
        if not self.choice.named:
            problems += [f"{n} {what}" for what, sql in _OTHERS.items() if (n := scalar(self.connection, sql))]
        refuse(problems)

    def _kept(self, needs: dict[Node, set[Node]]) -> set[Node]:
        """All nodes that go into the script."""
        s = self.structure
        tables: set[Node] = {("table", label) for label in self.tables}
        everything = tables | {("view", v.label) for v in s.views} | {("routine", r.label) for r in s.routines}
        everything |= {("type", t.label) for t in s.types}
        everything |= {("sequence", q.label) for q in s.sequences if not q.of_identity}
        left_out: set[Node] = {("table", label) for label in self.choice.left_out}
        owned = {("sequence", q.label) for q in s.sequences if q.owner_table and not self._owner(q)}
        if self.choice.named:
            return (below(tables, needs) & everything) - (owned - below(tables, needs))
        lost = (above(left_out, needs) & everything) - tables
        self.choice.warnings.extend(
            f"the {kind} {label} was left out: it needs a table that is not in this backup"
            for kind, label in sorted(lost)
        )
        return everything - lost - owned

    def _owner(self, sequence: Sequence) -> Table | None:
        """The table in this script whose column the sequence belongs to."""
        return next((t for t in self.choice.tables if t.label == sequence.owner_table), None)

    def _head(self) -> Iterator[Part]:
        for setting in (
            "client_encoding = 'UTF8'",
            "standard_conforming_strings = on",
            "check_function_bodies = off",
            "xmloption = content",
            "client_min_messages = warning",
            "row_security = off",
            "TIME ZONE 'UTC'",
            "datestyle = 'ISO, YMD'",
            "intervalstyle = 'postgres'",
            "lc_monetary = 'C'",
        ):
            yield statement(f"SET {setting}")
        yield statement("SELECT pg_catalog.set_config('search_path', '', false)")
        yield statement("BEGIN")
        for schema in self.structure.schemas:
            yield statement(f"CREATE SCHEMA IF NOT EXISTS {quote(schema, 'postgresql')}")
        for name, schema in rows(
            self.connection,
            "SELECT e.extname, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
            "WHERE e.extname <> 'plpgsql' ORDER BY e.oid",
        ):
            yield statement(
                f"CREATE EXTENSION IF NOT EXISTS {quote(name, 'postgresql')} WITH SCHEMA {quote(schema, 'postgresql')}"
            )

    def _make(self, node: Node) -> Iterator[Part]:
        kind, label = node
        if kind == "table":
            yield statement(self._table(self.tables[label]))
        elif kind == "view":
            yield statement(self._view(self.views[label]))
        elif kind == "sequence":
            found = self.sequences[label]
            yield statement(f"CREATE SEQUENCE {qualified(found.schema, found.name, 'postgresql')} {found.definition}")
        elif kind == "type":
            yield statement(next(t.definition for t in self.structure.types if t.label == label))
        else:
            yield statement(next(r.definition for r in self.structure.routines if r.label == label))

    def _table(self, table: Table) -> str:
        lines = ",\n  ".join(self._column(table, column) for column in table.columns)
        made = "CREATE UNLOGGED TABLE" if table.options.get("unlogged") else "CREATE TABLE"
        by = f" PARTITION BY {table.options['partitionBy']}" if "partitionBy" in table.options else ""
        settings = f" WITH ({table.options['with']})" if "with" in table.options else ""
        return f"{made} {_name(table)} (\n  {lines}\n){by}{settings}"

    def _column(self, table: Table, column: Column) -> str:
        text = f"{quote(column.name, 'postgresql')} {column.type.sql}"
        if column.collation:
            text += f" COLLATE {column.collation}"
        if column.generated is not None:
            text += f" GENERATED ALWAYS AS ({column.generated}) {'STORED' if column.stored else 'VIRTUAL'}"
        elif column.identity:
            kind = "ALWAYS" if column.identity == "always" else "BY DEFAULT"
            text += f" GENERATED {kind} AS IDENTITY{self._identity(table, column)}"
        elif column.default is not None:
            text += f" DEFAULT {column.default}"
        return text if column.nullable else text + " NOT NULL"

    def _identity(self, table: Table, column: Column) -> str:
        found = next(
            (s for s in self.structure.sequences if s.owner_table == table.label and s.owner_column == column.name),
            None,
        )
        if found is None:
            return ""
        options = found.definition.partition(" START ")[2]
        return f" (SEQUENCE NAME {qualified(found.schema, found.name, 'postgresql')} START {options})"

    def _view(self, view: View) -> str:
        kind = "MATERIALIZED VIEW" if view.materialized else "VIEW"
        options = f" WITH ({view.options})" if view.options else ""
        columns = column_list(view.columns, "postgresql")
        data = (" WITH DATA" if self.include_data else " WITH NO DATA") if view.materialized else ""
        name = qualified(view.schema, view.name, "postgresql")
        return f"CREATE {kind} {name} ({columns}){options} AS\n{view.definition}{data}"

    def _attach(self) -> Iterator[Part]:
        for table in self.choice.tables:
            bound, parent = table.options.get("bound"), table.options.get("parents", "")
            if bound and parent in self.tables:
                yield statement(
                    f"ALTER TABLE ONLY {_name(self.tables[parent])} ATTACH PARTITION {_name(table)} {bound}"
                )

    def _rows(self, table: Table) -> Iterator[Part]:
        """The server's own COPY text, passed on byte for byte. A parent of partitions has none of its own."""
        if "partitionBy" in table.options:
            return
        columns = column_list(tuple(c.name for c in table.writable), "postgresql")
        target = f"{_name(table)} ({columns})" if columns else _name(table)
        yield Part(f"COPY {target} FROM stdin;\n".encode(), ends=False)
        driver: Any = self.connection.connection.driver_connection
        held: list[bytes] = []
        size = 0
        with driver.cursor() as cursor, cursor.copy(f"COPY {target} TO STDOUT") as copy:
            for line in copy:
                held.append(bytes(line))
                size += len(line)
                if size > _PIECE:
                    yield Part(b"".join(held), table.label, len(held), ends=False)
                    held, size = [], 0
        yield Part(b"".join(held) + b"\\.\n", table.label, len(held))

    def _counters(self, kept: set[Node]) -> Iterator[Part]:
        for sequence in self.structure.sequences:
            if ("sequence", sequence.label) in kept or (sequence.of_identity and self._owner(sequence)):
                name = qualified(sequence.schema, sequence.name, "postgresql")
                value, called = rows(self.connection, f"SELECT last_value, is_called FROM {name}")[0]
                said = "true" if called else "false"
                yield statement(f"SELECT pg_catalog.setval({text_literal(name, 'postgresql')}, {value}, {said})")

    def _owned(self, kept: set[Node]) -> Iterator[Part]:
        for sequence in self.structure.sequences:
            owner = self._owner(sequence)
            if owner is not None and not sequence.of_identity and ("sequence", sequence.label) in kept:
                name = qualified(sequence.schema, sequence.name, "postgresql")
                column = f"{_name(owner)}.{quote(sequence.owner_column, 'postgresql')}"
                yield statement(f"ALTER SEQUENCE {name} OWNED BY {column}")

    def _keys(self) -> Iterator[Part]:
        for table in self.choice.tables:
            keys = ([table.primary_key] if table.primary_key else []) + list(table.unique_keys)
            for key in keys:
                if not key.inherited:
                    yield self._constraint(table, key.name, key.definition)
            for check in table.checks:
                yield self._constraint(table, check.name, check.expression)
            for index in table.indexes:
                yield statement(index.definition.replace(" ON ONLY ", " ON ", 1))
        for table in self.choice.tables:
            for foreign in table.foreign_keys:
                target = f"{foreign.to_schema}.{foreign.to_table}"
                if target in self.tables:
                    yield self._constraint(table, foreign.name, foreign.definition)
                else:
                    self.choice.warnings.append(
                        f"the foreign key {foreign.name} of {table.label} was left out: {target} is not in this backup"
                    )

    def _constraint(self, table: Table, name: str, definition: str) -> Part:
        only = "" if "partitionBy" in table.options else "ONLY "
        return statement(f"ALTER TABLE {only}{_name(table)} ADD CONSTRAINT {quote(name, 'postgresql')} {definition}")

    def _rest(self, kept: set[Node]) -> Iterator[Part]:
        relations = {label for kind, label in kept if kind in ("table", "view")}
        for view in self.structure.views:
            for index in view.indexes:
                if view.label in relations:
                    yield statement(index.definition)
        for relation, sql in rows(
            self.connection,
            "SELECT n.nspname || '.' || c.relname, pg_get_ruledef(r.oid) FROM pg_rewrite r JOIN pg_class c "
            "ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE r.rulename <> '_RETURN' AND r.oid >= 16384 ORDER BY 1, r.rulename",
        ):
            if relation in relations:
                yield statement(sql.rstrip(";"))
        for relation, sql in rows(
            self.connection,
            "SELECT n.nspname || '.' || c.relname, pg_get_statisticsobjdef(s.oid) FROM pg_statistic_ext s "
            "JOIN pg_class c ON c.oid = s.stxrelid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, s.stxname",
        ):
            if relation in relations:
                yield statement(sql)
        for trigger in self.structure.triggers:
            if f"{trigger.schema}.{trigger.table}" in relations:
                yield from _trigger(trigger)
        yield from self._row_security()
        yield from self._comments(relations)

    def _row_security(self) -> Iterator[Part]:
        for table in self.choice.tables:
            mode = table.options.get("rowSecurity")
            if mode:
                yield statement(f"ALTER TABLE {_name(table)} ENABLE ROW LEVEL SECURITY")
            if mode == "forced":
                yield statement(f"ALTER TABLE {_name(table)} FORCE ROW LEVEL SECURITY")
        for schema, table_name, policy, permissive, roles, command, using, check in rows(
            self.connection,
            "SELECT schemaname, tablename, policyname, permissive, array_to_string(ARRAY(SELECT CASE r WHEN 'public' "
            "THEN 'PUBLIC' ELSE quote_ident(r) END FROM unnest(roles) r), ', '), cmd, qual, with_check "
            "FROM pg_policies ORDER BY 1, 2, 3",
        ):
            found = self.tables.get(f"{schema}.{table_name}")
            if found is not None:
                yield statement(
                    f"CREATE POLICY {quote(policy, 'postgresql')} ON {_name(found)} AS {permissive} FOR {command} "
                    f"TO {roles}" + (f" USING ({using})" if using else "") + (f" WITH CHECK ({check})" if check else "")
                )

    def _comments(self, relations: set[str]) -> Iterator[Part]:
        """``relations`` holds the labels of the tables and views in this script."""
        found = rows(
            self.connection,
            "SELECT i.type, i.identity, d.description, n.nspname || '.' || c.relname FROM pg_description d "
            "LEFT JOIN pg_class c ON d.classoid = 'pg_class'::regclass AND c.oid = d.objoid "
            "LEFT JOIN pg_namespace n ON n.oid = c.relnamespace, "
            "LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i WHERE d.objoid >= 16384 AND i.type IN "
            "('table', 'table column', 'view', 'view column', 'materialized view', 'materialized view column', "
            "'index', 'sequence', 'function', 'procedure', 'type', 'schema', 'trigger', 'table constraint') "
            "ORDER BY 1, 2",
        )
        part = self.choice.named or bool(self.choice.left_out)
        for kind, identity, text, label in found:
            if part and label not in relations:
                continue
            word = "CONSTRAINT" if kind == "table constraint" else "COLUMN" if kind.endswith("column") else kind.upper()
            yield statement(f"COMMENT ON {word} {identity} IS {text_literal(text, 'postgresql')}")


def _name(table: Table) -> str:
    return qualified(table.schema, table.name, "postgresql")


def _trigger(trigger: Trigger) -> Iterator[Part]:
    yield statement(trigger.definition)
    words = {"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
    if trigger.enabled in words:
        name = qualified(trigger.schema, trigger.table, "postgresql")
        yield statement(f"ALTER TABLE {name} {words[trigger.enabled]} TRIGGER {quote(trigger.name, 'postgresql')}")
