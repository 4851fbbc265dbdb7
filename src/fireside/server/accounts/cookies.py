"""The cookie that a signed-in browser sends, and how a page of another site is kept from using it."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, cookie_parser
from starlette.responses import Response

from fireside.server.errors import ApiError

CSRF_HEADER = "x-fireside"

_NAME = "fireside_session"


def name_of(scheme: str) -> str:
    """Over https with the prefix that lets no other host set it, not even a subdomain (RFC 6265bis, 4.1.3.2)."""
    return f"__Host-{_NAME}" if scheme == "https" else _NAME


def read(headers: Headers, scheme: str) -> str | None:
    return cookie_parser(headers.get("cookie", "")).get(name_of(scheme)) or None


def token_of(connection: HTTPConnection) -> str | None:
    return read(connection.headers, connection.url.scheme)


def give(response: Response, connection: HTTPConnection, token: str, days: int) -> None:
    scheme = connection.url.scheme
    response.set_cookie(
        name_of(scheme),
        token,
        max_age=days * 86_400,
        path="/",
        secure=scheme == "https",
        httponly=True,
        samesite="lax",
    )


def take_back(response: Response, connection: HTTPConnection) -> None:
    scheme = connection.url.scheme
    response.delete_cookie(name_of(scheme), path="/", secure=scheme == "https", httponly=True, samesite="lax")


def check_same_origin(headers: Headers) -> ApiError | None:
    """What is wrong with a request that changes something; None if our own page sent it, or no browser at all.

    Another site's page cannot send the header without asking first by CORS, which is never granted. What browsers say
    of a request's origin is looked at as well.
    """
    host = headers.get("host", "").lower()
    origin = headers.get("origin")
    if headers.get(CSRF_HEADER) != "1":
        reason = "the header 'X-Fireside: 1' is missing"
    elif headers.get("sec-fetch-site", "same-origin") != "same-origin":
        reason = "it comes from a page of another site"
    elif origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        reason = f"it comes from a page of {origin!r:.200}, not of {host!r:.200}"
    else:
        return None
    return ApiError(403, f"this request is not from the app itself: {reason}", type="permission_error", code="csrf")
