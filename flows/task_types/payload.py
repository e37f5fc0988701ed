"""What the payload models of the built-in types share: both spellings, no unknown fields, strict JSON types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt
from pydantic.alias_generators import to_camel

__all__ = ["Flag", "Payload", "Seconds", "SecretRef", "Text", "Whole", "also", "unnested"]


class Payload(BaseModel):
    """Frozen; camelCase and snake_case are both accepted; an unknown field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class SecretRef(Payload):
    """``{"secret": "name"}``: a secret's name, resolved only in the process of the step."""

    secret: Annotated[str, Field(min_length=1)]


def also(name: str, *more: str) -> AliasChoices:
    """All accepted spellings of the field ``name``: camelCase, snake_case, and each of ``more`` in both."""
    spellings = dict.fromkeys(s for n in (name, *more) for s in (to_camel(n), n))
    return AliasChoices(*spellings)


def unnested(value: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A payload whose fields may also stand in an object under one of ``names``; those at the top count more."""
    nested = [name for name in names if isinstance(value.get(name), Mapping)]
    made: dict[str, Any] = {}
    for name in nested:
        made.update(value[name])
    return {**made, **{k: v for k, v in value.items() if k not in nested}}


def _not_blank(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("must not be blank")
    return value


Flag = StrictBool
"""A JSON boolean; ``"yes"`` and ``1`` are refused."""
Whole = StrictInt
"""A JSON whole number; ``"5"``, ``5.0`` and ``true`` are refused."""
Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
"""A JSON number of seconds, 0 or more."""
Text = Annotated[str, BeforeValidator(_not_blank)]
"""Text that holds more than white space."""
