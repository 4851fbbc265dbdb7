"""The app in the browser: what `web/` was built into, as files that never change under their names, and one page."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from mimetypes import guess_type
from pathlib import Path

from fastapi import APIRouter, Request, Response

import fireside
from fireside.server.body import BoundedRoute
from fireside.server.errors import ApiError

DIST = Path(fireside.__file__).with_name("web") / "dist"

# The app shows these itself; whatever is behind them is for its own router.
PAGE_PATHS = (
    "/",
    "/setup",
    "/join",
    "/reset",
    "/settings",
    "/settings/{section}",
    "/admin",
    "/admin/{section}",
    "/c/{conversation}",
    "/continue",
)

# What makes an app of it that can be installed, and read without a network. Asked for anew each time: a service worker
# that a browser kept would keep the rest.
INSTALLATION = {"/sw.js": "text/javascript", "/manifest.webmanifest": "application/manifest+json"}

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
        "connect-src 'self'; frame-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Vary": "Accept-Encoding",
    # The frames below have no origin: to a browser, the app's modules are another site's there. They are no secret.
    "Access-Control-Allow-Origin": "*",
}


def _frame(images: str) -> dict[str, str]:
    """Of a page that only ours may frame, and that is nobody's: no cookie, no storage, no network but `images`."""
    return _HEADERS | {
        "Content-Security-Policy": (
            "sandbox allow-scripts; default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; "
            f"img-src {images}; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
        ),
        "X-Frame-Options": "SAMEORIGIN",
    }


# Where what a model wrote is drawn, and where an image of another site is fetched once somebody has asked for it: the
# page itself can fetch nothing from elsewhere, whatever a mistake in our Markdown lets through.
_FRAMES = {"frame.html": _frame("data:"), "image.html": _frame("http: https:")}
_FOREVER = "public, max-age=31536000, immutable"  # the build puts a hash of the content into the name
_EACH_TIME = "no-cache"  # asked for again each time, and mostly answered with 304

_SMALLEST_COMPRESSED = 1024  # bytes; below that it costs more than it saves


@dataclass(frozen=True)
class _File:
    content: bytes
    compressed: bytes | None
    media_type: str
    etag: str


def _media_type(path: Path) -> str:
    known = {f".{name.rpartition('.')[2]}": media_type for name, media_type in INSTALLATION.items()}
    return known.get(path.suffix) or guess_type(path.name)[0] or "application/octet-stream"


@cache
def _file(path: Path) -> _File:
    content = path.read_bytes()
    media_type = _media_type(path)
    is_text = media_type.startswith("text/") or path.suffix in (".svg", ".webmanifest")
    compressed = gzip.compress(content, 9, mtime=0) if is_text and len(content) >= _SMALLEST_COMPRESSED else None
    return _File(content, compressed, media_type, f'W/"{sha256(content).hexdigest()[:32]}"')


@cache
def _assets() -> dict[str, Path]:
    """By name. Only what was built is served, so no name leads out of the folder."""
    return {path.name: path for path in (DIST / "assets").iterdir()}


def _respond(request: Request, path: Path, cache_control: str) -> Response:
    file = _file(path)
    headers = _FRAMES.get(path.name, _HEADERS) | {"Cache-Control": cache_control, "ETag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    if file.compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(file.compressed, media_type=file.media_type, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


router = APIRouter(route_class=BoundedRoute, include_in_schema=False)


@router.get("/assets/{name}")
def asset(name: str, request: Request) -> Response:
    path = _assets().get(name)
    if path is None:
        raise ApiError(404, f"there is no file {name!r} in this version of the app; reload the page", code="not_found")
    return _respond(request, path, _FOREVER if "-" in name else _EACH_TIME)


def _page(request: Request) -> Response:
    return _respond(request, DIST / "index.html", _EACH_TIME)


def _installation(request: Request) -> Response:
    return _respond(request, DIST / request.url.path.removeprefix("/"), _EACH_TIME)


for _path in PAGE_PATHS:
    router.add_api_route(_path, _page, methods=["GET"])
for _path in INSTALLATION:
    router.add_api_route(_path, _installation, methods=["GET"])
