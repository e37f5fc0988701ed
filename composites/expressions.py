"""A small safe evaluator for conditions and joins: comparison, boolean, arithmetic, membership, indexing.

No calls, no attributes outside data (``a.b`` is ``a["b"]``), no names but those given; size, depth and
results are bounded (spec 3.4, 8.5). The text is parsed by Python's own parser and walked over an allow-list,
so it reads as Python does; ``true``, ``false`` and ``null`` are accepted too.

``UNKNOWN`` stands for a value that does not exist yet: a plan evaluates the same expressions with it, and
whatever depends on it is UNKNOWN again, unless the other side of an ``and``/``or`` decides already.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from taskcenter.errors import ExpressionError

__all__ = ["UNKNOWN", "Expression", "Unknown", "parse"]

MAX_LENGTH: Final = 1_000
MAX_NODES: Final = 200
MAX_RESULT: Final = 100_000
_CONSTANTS: Final = {"true": True, "false": False, "null": None, "none": None}


class Unknown:
    """The value of something that has not happened yet."""

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __bool__(self) -> bool:
        return True

    def __deepcopy__(self, memo: object) -> Unknown:
        return self


UNKNOWN: Final = Unknown()

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: lambda a, b: a is b,
    ast.IsNot: lambda a, b: a is not b,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


@dataclass(frozen=True)
class Expression:
    """A parsed expression: its text and the names it reads (``steps["a-b"]`` counts as the name ``a-b``)."""

    text: str
    tree: ast.expr
    names: frozenset[str]

    def evaluate(self, scope: Mapping[str, Any]) -> Any:
        """The value over ``scope``; raises ExpressionError with the text and what went wrong."""
        try:
            return _evaluate(self.tree, scope)
        except ExpressionError as error:
            raise ExpressionError(f"the expression {self.text!r} failed: {error.message}") from None
        except (TypeError, ValueError, ZeroDivisionError, OverflowError, RecursionError) as error:
            raise ExpressionError(f"the expression {self.text!r} failed: {error}") from None


def parse(text: str) -> Expression:
    """Parse and check; raises ExpressionError with the place of what is not allowed."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"the expression is longer than {MAX_LENGTH} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ExpressionError(f"{text!r} is not an expression: {getattr(error, 'msg', error)}") from None
    names: set[str] = set()
    for count, node in enumerate(ast.walk(tree), start=1):
        if count > MAX_NODES:
            raise ExpressionError(f"the expression has more than {MAX_NODES} parts")
        _check(node, text)
        key = _step_key(node)
        if key is not None:
            names.add(key)
        elif isinstance(node, ast.Name) and node.id.lower() not in _CONSTANTS:
            names.add(node.id)
    return Expression(text, tree, frozenset(names))


def _check(node: ast.AST, text: str) -> None:
    if isinstance(node, ast.Call):
        raise ExpressionError(f"{text!r}: calls are not allowed")
    if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
        raise ExpressionError(f"{text!r}: names that start with an underscore are not allowed")
    if isinstance(node, ast.BinOp) and type(node.op) not in _ARITHMETIC:
        raise ExpressionError(f"{text!r}: only + - * / // % are allowed")
    if isinstance(node, ast.UnaryOp) and type(node.op) not in _UNARY:
        raise ExpressionError(f"{text!r}: only not, - and + are allowed before a value")
    if isinstance(node, ast.Constant) and not isinstance(node.value, (str, int, float, bool, type(None))):
        raise ExpressionError(f"{text!r}: {node.value!r} is not a JSON value")
    if not isinstance(node, _ALLOWED):
        raise ExpressionError(f"{text!r}: {type(node).__name__} is not allowed")


_ALLOWED = (
    ast.BoolOp, ast.boolop, ast.UnaryOp, ast.unaryop, ast.BinOp, ast.operator, ast.Compare, ast.cmpop,
    ast.Constant, ast.Name, ast.Load, ast.Attribute, ast.Subscript, ast.List, ast.Tuple,
)  # fmt: skip


def _step_key(node: ast.AST) -> str | None:
    """``steps["a-b"]`` and ``steps.a`` name a step whose key need not be an identifier."""
    if (
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id == "steps"
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    ):
        return node.slice.value
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "steps":
        return node.attr
    return None


def _evaluate(node: ast.expr, scope: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return _name(name, scope)
        case ast.Attribute(value=inner, attr=attr):
            return _index(_evaluate(inner, scope), attr)
        case ast.Subscript(value=inner, slice=index):
            return _index(_evaluate(inner, scope), _evaluate(index, scope))
        case ast.List(elts=items) | ast.Tuple(elts=items):
            values = [_evaluate(item, scope) for item in items]
            return UNKNOWN if any(value is UNKNOWN for value in values) else values
        case ast.BoolOp(op=op, values=values):
            return _boolean(isinstance(op, ast.And), values, scope)
        case ast.UnaryOp(op=op, operand=operand):
            value = _evaluate(operand, scope)
            return UNKNOWN if value is UNKNOWN else _UNARY[type(op)](value)
        case ast.BinOp(left=left, op=op, right=right):
            return _arithmetic(op, _evaluate(left, scope), _evaluate(right, scope))
        case ast.Compare(left=left, ops=ops, comparators=others):
            return _compare(_evaluate(left, scope), ops, others, scope)
    raise ExpressionError(f"{type(node).__name__} is not allowed")


def _name(name: str, scope: Mapping[str, Any]) -> Any:
    if name in scope:
        return scope[name]
    if name.lower() in _CONSTANTS:
        return _CONSTANTS[name.lower()]
    raise ExpressionError(f"{name!r} is not known; known: {', '.join(sorted(scope)) or 'nothing'}")


def _index(value: Any, key: Any) -> Any:
    if value is UNKNOWN or key is UNKNOWN:
        return UNKNOWN
    if isinstance(value, Mapping):
        if key in value:
            return value[key]
        raise ExpressionError(f"there is no {key!r}; there are: {', '.join(map(str, value)) or 'no keys'}")
    if isinstance(value, Sequence) and not isinstance(value, str) and isinstance(key, int):
        if -len(value) <= key < len(value):
            return value[key]
        raise ExpressionError(f"there is no item {key}; the list has {len(value)}")
    raise ExpressionError(f"{key!r} cannot be looked up in {type(value).__name__}")


def _boolean(is_and: bool, values: Sequence[ast.expr], scope: Mapping[str, Any]) -> Any:
    result: Any = is_and
    unknown = False
    for item in values:
        value = _evaluate(item, scope)
        if value is UNKNOWN:
            unknown = True
            continue
        result = value
        if bool(value) != is_and:
            return value
    return UNKNOWN if unknown else result


def _arithmetic(op: ast.operator, left: Any, right: Any) -> Any:
    if left is UNKNOWN or right is UNKNOWN:
        return UNKNOWN
    numbers = all(isinstance(v, (int, float)) for v in (left, right))
    texts = isinstance(op, ast.Add) and isinstance(left, str) and isinstance(right, str)
    if not numbers and not texts:
        raise ExpressionError(f"cannot combine {type(left).__name__} and {type(right).__name__} this way")
    result = _ARITHMETIC[type(op)](left, right)
    if isinstance(result, str) and len(result) > MAX_RESULT:
        raise ExpressionError("the text grows too long")
    if isinstance(result, int) and result.bit_length() > 4_096:
        raise ExpressionError("the number grows too large")
    return result


def _compare(left: Any, ops: Sequence[ast.cmpop], others: Sequence[ast.expr], scope: Mapping[str, Any]) -> Any:
    for op, other in zip(ops, others, strict=True):
        right = _evaluate(other, scope)
        if left is UNKNOWN or right is UNKNOWN:
            return UNKNOWN
        if not _COMPARE[type(op)](left, right):
            return False
        left = right
    return True
