"""Who may come in: bearer keys, and for a server without keys a defence against web pages in the owner's browser.

Every route asks for a key, those added later too, unless it is in `OPEN_PATHS`. A server without keys listens on
loopback only (`Settings.check_exposure`), which keeps other machines out but not the pages that the owner's own
browser shows: those could reach it by DNS rebinding (caught by the Host header) or by a cross-site request (caught by
the Origin header). With keys both are harmless, since a page cannot know the key and there is no CORS.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from hashlib import sha256

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from fireside.server.errors import ApiError

# Load balancers probe the first two and hold no keys; both answer with one word. The page holds no data and asks for
# the key itself. /version and /metrics tell an attacker too much to be here.
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/"})

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::\d+)?", re.ASCII)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class AccessMiddleware:
    """Pure ASGI. `keys` empty: no key is asked for, and Host must be a loopback name or `host`."""

    def __init__(self, app: ASGIApp, *, keys: Iterable[str], host: str) -> None:
        self._app = app
        # Digests are of one length, so that comparing tells nothing of a key's length either.
        self._digests = tuple(sha256(key.encode()).digest() for key in keys)
        self._hosts = _LOOPBACK_NAMES | {host.strip("[]").lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = None
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            if not self._digests:
                error = self._check_browser(scope.get("method", "GET"), headers)
            elif scope["path"] not in OPEN_PATHS:
                error = self._check_key(headers)
        if error is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await error.response()(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": error.detail})

    def _check_key(self, headers: Headers) -> ApiError | None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        digest = sha256(key.strip().encode()).digest()
        # Every key is compared, so that the time does not tell which one was close.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if scheme.lower() == "bearer" and any(matches):
            return None
        given = "is not one of this server's" if key else "is missing"
        return ApiError(
            401,
            f"the API key {given}; send it as 'Authorization: Bearer KEY'",
            type="authentication_error",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _check_browser(self, method: str, headers: Headers) -> ApiError | None:
        host = headers.get("host", "")
        if _hostname(host) not in self._hosts:
            return ApiError(
                403,
                f"this server has no API keys and so answers only to its own names, not to {host!r}; "
                "set api_keys to reach it under another name",
                type="permission_error",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        own_origins = {f"http://{host}".lower(), f"https://{host}".lower()}
        if origin is None or method in _SAFE_METHODS or origin.lower() in own_origins:
            return None
        return ApiError(
            403,
            f"a web page of {origin!r} may not use this server, which has no API keys",
            type="permission_error",
            code="origin_not_allowed",
        )


def _hostname(host: str) -> str | None:
    """The name in a Host header, without its port. RFC 9110, 7.2."""
    match = _HOST.fullmatch(host)
    return match and match[1].strip("[]").lower()
