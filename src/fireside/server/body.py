"""Request bodies: bounded while they arrive and while they are parsed, strict JSON only."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from fireside.server.errors import ApiError, ClientDisconnected

# A parsed value may take 100 times the memory of its text, so commas and brackets are bounded and not the size alone.
# No context holds a text or a list of token ids with so many.
MAX_JSON_SEPARATORS = 500_000


def parse_json(data: bytes) -> Any:
    """The value of a JSON text as RFC 8259 has it: UTF-8, no NaN, nested at most 200 deep.

    Raises `ApiError` 400.
    """
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_JSON_SEPARATORS:
        raise _not_json(f"it holds more than {MAX_JSON_SEPARATORS:,} commas and opening brackets")
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as exc:
        raise _not_json(str(exc)) from exc


def _not_json(reason: str) -> ApiError:
    return ApiError(400, f"the body is not JSON that this server can take: {reason}", code="invalid_json")


MAX_STRANGER_BYTES = 16 << 10  # of one who is not signed in, on the app's routes: there is nothing large to say there


class BoundedRequest(Request):
    """A request whose body is refused once it passes `app.state.max_body_bytes`, before the rest is read."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            limit: int = self.app.state.max_body_bytes
            if self.scope["path"].startswith("/api/") and self.scope.get("state", {}).get("identity") is None:
                limit = min(limit, MAX_STRANGER_BYTES)
            declared = self.headers.get("content-length", "")
            if declared.isdecimal() and int(declared) > limit:
                raise _too_large(limit)
            data = bytearray()
            try:
                async for chunk in self.stream():
                    data += chunk
                    if len(data) > limit:
                        raise _too_large(limit)
            except ClientDisconnect as exc:
                raise ClientDisconnected from exc
            self._body = bytes(data)
        return self._body

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413,
        f"the body is larger than the {limit:,} bytes that this server takes",
        code="request_too_large",
        headers={"Connection": "close"},  # the rest of it is never read
    )


class BoundedRoute(APIRoute):
    """The route class of every router here, so that no body is read in any other way."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(BoundedRequest(request.scope, request.receive))

        return handle
