"""Who may come in. One place decides, before any route: what is not let in by name here is refused.

| path | lets in |
|---|---|
| `OPEN_PATHS`, the page, shared links | everybody |
| `/api` | the cookie of a signed-in browser; `OPEN_API` everybody |
| `/v1`, `/tokenize`, `/detokenize` | a key of the settings or of a person, or the cookie |
| all else | a key of the settings, or an administrator's cookie |

What changes something by cookie has to come from our own page (`accounts/cookies.py`).

A server on loopback that has neither keys nor people (`Accounts.is_private`) is open to its own machine, except `/api`.
That keeps other machines out, but not the pages that the owner's own browser shows: those could reach it by DNS
rebinding (caught by the Host header) or by a cross-site request (caught by the Origin header). Otherwise both are
harmless, since a page knows no key, a cookie is sent to its own host only, and there is no CORS.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from fireside.server.accounts import cookies
from fireside.server.accounts.identity import INFERENCE, Identity, by_key, by_session
from fireside.server.accounts.tables import Role
from fireside.server.deps import Context
from fireside.server.errors import ApiError

# Load balancers probe the first two and hold no keys; both answer with one word. The page holds no data.
# /version and /metrics tell an attacker too much to be here.
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/", "/sw.js", "/manifest.webmanifest"})

# The first parts of the page's paths, which hold no data either.
PAGE_FOLDERS = frozenset({"admin", "assets", "c", "continue", "join", "reset", "settings", "setup"})

# What people share with whoever has a link; the secret in the link is what lets in.
SHARED_FOLDER = "s"

# What has to be done before one is signed in.
OPEN_API = frozenset(
    {
        ("GET", "/api/session"),
        ("POST", "/api/session"),
        ("DELETE", "/api/session"),
        ("POST", "/api/setup"),
        ("POST", "/api/users"),
        ("POST", "/api/reset"),
    }
)

_INFERENCE_PATHS = frozenset({"/tokenize", "/detokenize"})
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::\d+)?", re.ASCII)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def is_open(method: str, path: str) -> bool:
    """Whether everybody may ask for it."""
    if path in OPEN_PATHS or (method, path) in OPEN_API:
        return True
    if method not in ("GET", "HEAD") or not path.startswith("/"):
        return False
    return path.split("/", 2)[1] in PAGE_FOLDERS | {SHARED_FOLDER}


class AccessMiddleware:
    """Pure ASGI. Notes whom it lets in as `request.state.identity`."""

    def __init__(self, app: ASGIApp, *, context: Context) -> None:
        self._app = app
        self._context = context
        settings = context.settings
        # Digests are of one length, so that comparing tells nothing of a key's length either.
        self._digests = tuple(sha256(key.get_secret_value().encode()).digest() for key in settings.api_keys)
        self._hosts = _LOOPBACK_NAMES | {settings.host.strip("[]").lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            identity = await self._identify(
                scope.get("method", "GET"), scope["path"], scope["scheme"], Headers(scope=scope)
            )
        except ApiError as error:
            if scope["type"] == "http":
                await error.response()(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008, "reason": error.detail})
            return
        scope.setdefault("state", {})["identity"] = identity
        if identity is None or identity.user is None or scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            await self._context.watch.serve(identity, self._app, scope, receive, send)

    async def _identify(self, method: str, path: str, scheme: str, headers: Headers) -> Identity | None:
        """Raises `ApiError` if this request may not come in."""
        is_api = path == "/api" or path.startswith("/api/")
        is_private = await self._context.accounts.is_private()
        if is_private:
            self._check_browser(method, headers)
        if is_api:
            return await self._identify_browser(method, path, scheme, headers)
        if is_open(method, path):
            return None
        if is_private:
            return Identity()
        token = None if "authorization" in headers else cookies.read(headers, scheme)
        if token and (identity := await by_session(self._context.database, token)):
            _check_origin(method, headers)
            if not _is_inference(path) and (identity.user is None or identity.user.role is not Role.ADMIN):
                raise ApiError(403, "this is for administrators", type="permission_error", code="not_allowed")
            return identity
        return await self._identify_program(path, headers)

    async def _identify_browser(self, method: str, path: str, scheme: str, headers: Headers) -> Identity | None:
        _check_origin(method, headers)
        token = cookies.read(headers, scheme)
        identity = await by_session(self._context.database, token) if token else None
        if identity is None and not is_open(method, path):
            raise ApiError(
                401,
                "nobody is signed in, or no longer",
                type="authentication_error",
                code="not_signed_in",
                headers={"WWW-Authenticate": 'Cookie realm="fireside"'},
            )
        return identity

    async def _identify_program(self, path: str, headers: Headers) -> Identity:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        key = given.strip()
        digest = sha256(key.encode("utf-8", "surrogatepass")).digest()
        # Every key is compared, so that the time does not tell which one was close.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if scheme.lower() == "bearer":
            if any(matches):
                return Identity()
            if identity := await by_key(self._context.database, key):
                if _is_inference(path) and INFERENCE in (identity.scopes or ()):
                    return identity
                raise ApiError(
                    403, "this API key is not for that", type="permission_error", code="insufficient_permissions"
                )
        reason = "is not one of this server's" if key else "is missing"
        raise ApiError(
            401,
            f"the API key {reason}; send it as 'Authorization: Bearer KEY'",
            type="authentication_error",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _check_browser(self, method: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if _hostname(host) not in self._hosts:
            raise ApiError(
                403,
                f"this server asks nobody who they are and so answers only to its own names, not to {host!r}; "
                "make the administrator's account, or set api_keys, to reach it under another name",
                type="permission_error",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        own_origins = {f"http://{host}".lower(), f"https://{host}".lower()}
        if origin is not None and method not in _SAFE_METHODS and origin.lower() not in own_origins:
            raise ApiError(
                403,
                f"a web page of {origin!r} may not use this server, which asks nobody who they are",
                type="permission_error",
                code="origin_not_allowed",
            )


def _check_origin(method: str, headers: Headers) -> None:
    if method not in _SAFE_METHODS and (error := cookies.check_same_origin(headers)):
        raise error


def _is_inference(path: str) -> bool:
    return path.startswith("/v1/") or path in _INFERENCE_PATHS


def _hostname(host: str) -> str | None:
    """The name in a Host header, without its port. RFC 9110, 7.2."""
    match = _HOST.fullmatch(host)
    return match and match[1].strip("[]").lower()
