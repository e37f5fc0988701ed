"""Finds secrets that were written out in a definition, before they reach a row, Prefect or a log. (spec 0.4, 8.3)

Only object keys are judged (``password: hunter2``): what stands under them must be a reference, a template or
nothing. Text is left alone here; what leaks through text is masked when it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .errors import Problem, Refused
from .redaction import MASK, holds_secret, is_secret_name

__all__ = ["find_clear_secrets", "keep_out_of_parameters"]

_HINT = (
    "a secret must not stand here in the clear: save it with taskcenter secret set and write "
    '{{secret("name")}} instead, or name a connection that holds it'
)


def find_clear_secrets(value: Any, path: str) -> list[Problem]:
    """One problem per secret that stands in ``value`` as plain text."""
    return [Problem("secret_in_clear", where, _HINT) for where in _walk(value, path)]


def keep_out_of_parameters(value: Any, owner: str) -> None:
    """Raises Refused when parameters of a flow run, which Prefect keeps in clear, hold what this process resolved."""
    if holds_secret(value):
        raise Refused(
            f"the value of a secret would stand in the parameters of {owner}, which Prefect keeps in clear: "
            "let the step that needs the secret ask for it by its name"
        )


def _walk(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            where = f"{path}.{key}"
            if _is_reference(value, str(key)):
                continue
            if is_secret_name(str(key)) and isinstance(item, str) and not _is_harmless(item):
                yield where
            else:
                yield from _walk(item, where)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}[{index}]")


def _is_reference(owner: Mapping[Any, Any], key: str) -> bool:
    """``{"secret": "name"}`` names a secret and holds none."""
    return key == "secret" and set(owner) <= {"secret", "scheme", "user", "username", "header", "prefix"}


def _is_harmless(text: str) -> bool:
    stripped = text.strip()
    return not stripped or "{{" in text or stripped == MASK or set(stripped) == {"*"}
