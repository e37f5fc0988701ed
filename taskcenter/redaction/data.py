"""Masks data: by key, by what an option or a pair's name says, and every text in it. (spec 6.6, rule 2)"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .judge import is_harmless, is_secret_name
from .patterns import MASK
from .text import MOST_ROUNDS

__all__ = ["mask_data", "mask_value"]


def mask_data(value: Any, clean: Callable[[str], str]) -> Any:
    """Masked until nothing changes any more, so that masking twice is masking once."""
    for _ in range(MOST_ROUNDS):
        after = mask_value(value, clean)
        if after == value:
            return after
        value = after
    return MASK


def mask_value(value: Any, clean: Callable[[str], str]) -> Any:
    """One pass over a JSON-like value; ``clean`` masks the texts in it. Keys, order and types stay."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return _mask_mapping(value, clean)
    if isinstance(value, (list, tuple)):
        items = _mask_items(value, clean)
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, (bytes, bytearray)):
        return clean(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return value


def _mask_items(items: Iterable[Any], clean: Callable[[str], str]) -> list[Any]:
    """The elements; one that follows an option such as ``--password`` is that option's value."""
    result: list[Any] = []
    masked_next = False
    for item in items:
        if masked_next and isinstance(item, str) and not item.startswith("-"):
            result.append(_hide(item, clean))
            masked_next = False
            continue
        done = mask_value(item, clean)
        masked_next = isinstance(item, str) and item.startswith("-") and "=" not in item and _names_secret(item, done)
        result.append(done)
    return result


def _names_secret(name: str, cleaned: str) -> bool:
    """Whether a name tells of a secret, as it was or as it stands after masking."""
    return is_secret_name(name) or (cleaned != name and is_secret_name(cleaned))


def _mask_mapping(value: Mapping[Any, Any], clean: Callable[[str], str]) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    # {"name": "DB_PASSWORD", "value": "…"}: how containers and forms write an environment
    pair = next((value[k] for k in ("name", "key", "Name", "Key") if isinstance(value.get(k), str)), "")
    named_pair = bool(pair) and _names_secret(pair, clean(pair))
    for key, item in value.items():
        name = key
        if isinstance(key, str):
            name = clean(key)
            hidden = _names_secret(key, name) or (named_pair and key.lower() == "value")
            while name in result:
                name += "#"  # two keys that were masked alike both stay
            if hidden:
                result[name] = _hide(item, clean)
                continue
        result[name] = mask_value(item, clean)
    return result


def _hide(item: Any, clean: Callable[[str], str]) -> Any:
    """The value behind a secret's name: masked whole, but nothing, truth values, numbers and placeholders stay."""
    if (
        item is None
        or isinstance(item, (bool, int, float))
        or (not item and isinstance(item, (str, list, tuple, dict)))
    ):
        return item
    if isinstance(item, str) and is_harmless(item) and not item.isalpha():
        return clean(item)
    return MASK
