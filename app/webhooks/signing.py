"""Signatures after Standard Webhooks 1.0.0 (standardwebhooks.com)."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable

_SECRET_PREFIX = "whsec_"
# The standard wants 24 to 64; as many as the hash has.
_SECRET_BYTES = 32

ROTATION_SECONDS = 86_400
"""How long a secret that was replaced signs too: time to give the new one to every receiver."""


def create_secret() -> str:
    """A new secret as its owner gets it."""
    return _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def sign(secret_list: Iterable[str], delivery_id: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature``: a signature by each secret. ``timestamp``: seconds."""
    content = f"{delivery_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{_sign_once(secret, content)}" for secret in secret_list)


def _sign_once(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX))
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
