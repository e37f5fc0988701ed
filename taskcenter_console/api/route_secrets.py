"""Secrets over REST: values are taken, never given. (spec 8.3)"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from pydantic import Field, SecretStr

from taskcenter.models import Model
from taskcenter_console.services import secrets

from .depends import CALLER, CenterOf
from .problems import documented

__all__ = ["router"]

router = APIRouter(prefix="/api/secrets", tags=["service"])


class SecretBody(Model):
    value: SecretStr = Field(description="The new value; `***` keeps the old one.")


class SecretView(Model):
    """What may be known of a secret."""

    name: str
    version: int
    value: Literal["***"] = "***"
    set_at: datetime
    set_by: str
    kept_versions: int


class SecretList(Model):
    items: list[SecretView]


class KeyRotated(Model):
    key: str = Field(description="A fingerprint of the new key.")
    values: int


@router.get("", responses=documented(409))
def list_secrets(center: CenterOf) -> SecretList:
    """Names and versions, never a value."""
    return SecretList.model_validate({"items": secrets.list_secrets(center)})


@router.put("/{name}", responses=documented(404, 409, 422))
def set_secret(center: CenterOf, name: str, body: SecretBody) -> SecretView:
    """A new version of a secret; `***` keeps the one there is."""
    return SecretView.model_validate(secrets.put(center, name, body.value.get_secret_value(), CALLER))


@router.delete("/{name}", status_code=204, responses=documented(404, 409))
def delete_secret(center: CenterOf, name: str) -> None:
    """All versions of a secret."""
    secrets.delete(center, name, CALLER)


@router.post("/rotate-key", responses=documented(409))
def rotate_secret_key(center: CenterOf) -> KeyRotated:
    """Encrypt all secrets with a new key."""
    return KeyRotated.model_validate(secrets.rotate_key(center, CALLER))
