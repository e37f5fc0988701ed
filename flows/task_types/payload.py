"""What the payload models of the built-in types share: both spellings, no unknown fields, strict JSON types."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt
from pydantic.alias_generators import to_camel

__all__ = ["Flag", "Payload", "Seconds", "SecretRef", "Text", "Whole", "also"]


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
