"""Names as each engine writes them. Every name is quoted: reserved words, spaces and capitals then mean themselves."""

from __future__ import annotations

__all__ = ["column_list", "qualified", "quote"]


def quote(name: str, dialect: str) -> str:
    """``order`` → ``"order"``, on MySQL with back ticks. The quote sign inside is doubled."""
    mark = "`" if dialect == "mysql" else '"'
    return f"{mark}{name.replace(mark, mark * 2)}{mark}"


def qualified(schema: str, name: str, dialect: str) -> str:
    """``"sales"."orders"``; without a schema only the name."""
    return f"{quote(schema, dialect)}.{quote(name, dialect)}" if schema else quote(name, dialect)


def column_list(names: tuple[str, ...] | list[str], dialect: str) -> str:
    return ", ".join(quote(name, dialect) for name in names)
