"""What has to be made before what on PostgreSQL, from the server's own record of dependencies."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from .catalog import rows

__all__ = ["Needs", "Node", "above", "below", "in_order", "read_needs"]

Node = tuple[str, str]
"""Kind (type, sequence, table, routine, view) and label, as in the model."""
_RANK = {"type": 0, "sequence": 1, "table": 2, "routine": 3, "view": 4}
_RELATIONS = {"r": "table", "p": "table", "f": "table", "v": "view", "m": "view", "S": "sequence"}


class Needs:
    """``before``: what must stand before a node is made. ``all``: that, and what its checks, indexes, triggers use."""

    def __init__(self) -> None:
        self.before: dict[Node, set[Node]] = defaultdict(set)
        self.all: dict[Node, set[Node]] = defaultdict(set)

    def add(self, node: Node, other: Node, *, first: bool) -> None:
        if node != other:
            self.all[node].add(other)
            if first:
                self.before[node].add(other)


def read_needs(connection: sa.Connection) -> Needs:
    """Every dependency between objects that somebody made; the search path must be empty."""
    nodes, later = _nodes(connection)
    needs = Needs()
    found = rows(
        connection,
        "SELECT classid::regclass::text, objid::bigint, refclassid::regclass::text, refobjid::bigint, deptype::text "
        "FROM pg_depend WHERE objid >= 16384 AND refobjid >= 16384 AND deptype <> 'e'",
    )
    for kind, oid, other_kind, other_oid, _ in found:
        node, other = nodes.get((kind, oid)), nodes.get((other_kind, other_oid))
        # A sequence that belongs to a column is made before the table, and handed over afterwards.
        if node and other and not (node[0] == "sequence" and other[0] == "table"):
            needs.add(node, other, first=(kind, oid) not in later)
    return needs


def _nodes(connection: sa.Connection) -> tuple[dict[tuple[str, int], Node], set[tuple[str, int]]]:
    """Which node an object of the catalogue is a part of, and which of these parts are made after the rows."""
    nodes: dict[tuple[str, int], Node] = {}
    later: set[tuple[str, int]] = set()
    relations: dict[int, Node] = {}
    for oid, kind, label in rows(
        connection,
        "SELECT c.oid::bigint, c.relkind::text, n.nspname || '.' || c.relname FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid >= 16384",
    ):
        if kind in _RELATIONS:
            nodes["pg_class", oid] = relations[oid] = (_RELATIONS[kind], label)
    for oid, relation, element, label, of_table in rows(
        connection,
        "SELECT t.oid::bigint, t.typrelid::bigint, t.typelem::bigint, n.nspname || '.' || t.typname, "
        "c.relkind IS NOT NULL AND c.relkind <> 'c' FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace "
        "LEFT JOIN pg_class c ON c.oid = t.typrelid WHERE t.oid >= 16384 ORDER BY t.typelem <> 0",
    ):
        if of_table and relation in relations:
            nodes["pg_type", oid] = relations[relation]
        elif element and ("pg_type", element) in nodes:
            nodes["pg_type", oid] = nodes["pg_type", element]
        else:
            nodes["pg_type", oid] = ("type", label)
            if relation:
                nodes["pg_class", relation] = ("type", label)
    for oid, label in rows(
        connection,
        "SELECT p.oid::bigint, n.nspname || '.' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) "
        "|| ')' "
        "FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid >= 16384",
    ):
        nodes["pg_proc", oid] = ("routine", label)
    parts = (
        ("pg_attrdef", "SELECT oid::bigint, adrelid::bigint FROM pg_attrdef", False),
        ("pg_rewrite", "SELECT oid::bigint, ev_class::bigint FROM pg_rewrite WHERE rulename = '_RETURN'", False),
        ("pg_constraint", "SELECT oid::bigint, conrelid::bigint FROM pg_constraint WHERE conrelid <> 0", True),
        ("pg_trigger", "SELECT oid::bigint, tgrelid::bigint FROM pg_trigger", True),
        ("pg_policy", "SELECT oid::bigint, polrelid::bigint FROM pg_policy", True),
        ("pg_class", "SELECT indexrelid::bigint, indrelid::bigint FROM pg_index WHERE indexrelid >= 16384", True),
    )
    for catalogue, sql, afterwards in parts:
        for oid, relation in rows(connection, sql):
            if relation in relations:
                nodes[catalogue, oid] = relations[relation]
                if afterwards:
                    later.add((catalogue, oid))
    for oid, kind in rows(connection, "SELECT oid::bigint, contypid::bigint FROM pg_constraint WHERE contypid <> 0"):
        if ("pg_type", kind) in nodes:
            nodes["pg_constraint", oid] = nodes["pg_type", kind]
    return nodes, later


def below(start: Iterable[Node], needs: Mapping[Node, set[Node]]) -> set[Node]:
    """``start`` and all that it needs, directly or not."""
    done: set[Node] = set()
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if node not in done:
            done.add(node)
            waiting += needs.get(node, ())
    return done


def above(start: Iterable[Node], needs: Mapping[Node, set[Node]]) -> set[Node]:
    """``start`` and all that needs it, directly or not."""
    users: dict[Node, set[Node]] = defaultdict(set)
    for node, others in needs.items():
        for other in others:
            users[other].add(node)
    return below(start, users)


def in_order(nodes: Iterable[Node], before: Mapping[Node, set[Node]]) -> list[Node]:
    """Each after what it needs; alike nodes by kind and name, so that the same database gives the same script."""
    waiting = {node: {other for other in before.get(node, ()) if other != node} for node in nodes}
    for others in waiting.values():
        others &= waiting.keys()
    users: dict[Node, list[Node]] = defaultdict(list)
    for node, others in waiting.items():
        for other in others:
            users[other].append(node)
    ready = [(_RANK[node[0]], node) for node, others in waiting.items() if not others]
    heapq.heapify(ready)
    done: list[Node] = []
    while waiting:
        # A ring (a function in the default of the table that it returns) is opened at its lowest kind.
        node = heapq.heappop(ready)[1] if ready else min(waiting, key=lambda n: (_RANK[n[0]], n))
        if node not in waiting:
            continue
        del waiting[node]
        done.append(node)
        for user in users[node]:
            if user in waiting:
                waiting[user].discard(node)
                if not waiting[user]:
                    heapq.heappush(ready, (_RANK[user[0]], user))
    return done
