"""Secrets that we make: of sessions, one-time links and keys. 256 random bits, of which we keep a digest only.

A digest without salt will do: nobody tries out 2^256 of them. Looking one up by its digest tells by no time how close a
guess was, since a digest that is nearly right comes from a secret that is not.
"""

from __future__ import annotations

import secrets
from hashlib import sha256

KEY_PREFIX = "fs-"
SHOWN_OF_KEY = len(KEY_PREFIX) + 6


def new_token() -> str:
    return secrets.token_urlsafe(32)


def new_key() -> str:
    return KEY_PREFIX + new_token()


def digest(token: str) -> str:
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
