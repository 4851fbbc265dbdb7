"""Serves the one-file page, and lets its own script and style run and nothing else."""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Response

from fireside.server.body import BoundedRoute

_HTML = Path(__file__).with_name("index.html").read_bytes()


def _hashes(element: bytes) -> str:
    """CSP source expressions for the inline `element`s. https://www.w3.org/TR/CSP3/#grammardef-hash-source"""
    contents = re.findall(rb"<%s>(.*?)</%s>" % (element, element), _HTML, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(sha256(text).digest()).decode()}'" for text in contents)


_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_hashes(b'script')}; style-src {_hashes(b'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}

router = APIRouter(route_class=BoundedRoute)


@router.get("/", include_in_schema=False)
async def page() -> Response:
    return Response(_HTML, media_type="text/html", headers=_HEADERS)
