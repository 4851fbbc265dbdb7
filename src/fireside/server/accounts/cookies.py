"""The cookie that a signed-in browser sends, and how a page of another site is kept from using it."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, cookie_parser
from starlette.responses import Response

from fireside.server.errors import ApiError

CSRF_HEADER = "x-fireside"

_NAME = "fireside_session"


def name_of(scheme: str, host: str) -> str:
    """host: the Host header. Cookies know no ports, so that the name has to say it: one who is signed in to two servers
    of one machine, at two ports, would be signed out of one by signing in to the other.

    Over https with the prefix that lets no other host set it, not even a subdomain (RFC 6265bis, 4.1.3.2).
    """
    _, _, port = host.rpartition(":")
    name = _NAME if not port.isdecimal() else f"{_NAME}_{port:.5}"
    return _prefixed(name, scheme)


def _prefixed(name: str, scheme: str) -> str:
    return f"__Host-{name}" if scheme == "https" else name


def read(headers: Headers, scheme: str) -> str | None:
    """Under its name with the port; else under the one without, which earlier versions gave."""
    given = cookie_parser(headers.get("cookie", ""))
    return given.get(name_of(scheme, headers.get("host", ""))) or given.get(_prefixed(_NAME, scheme)) or None


def token_of(connection: HTTPConnection) -> str | None:
    return read(connection.headers, connection.url.scheme)


def give(response: Response, connection: HTTPConnection, token: str, days: int) -> None:
    scheme = connection.url.scheme
    response.set_cookie(
        name_of(scheme, connection.headers.get("host", "")),
        token,
        max_age=days * 86_400,
        path="/",
        secure=scheme == "https",
        httponly=True,
        samesite="lax",
    )


def take_back(response: Response, connection: HTTPConnection) -> None:
    """The cookie by which the request came; one without a port may be another server's."""
    scheme = connection.url.scheme
    name = name_of(scheme, connection.headers.get("host", ""))
    if name not in connection.cookies:
        name = _prefixed(_NAME, scheme)
    response.delete_cookie(name, path="/", secure=scheme == "https", httponly=True, samesite="lax")


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
