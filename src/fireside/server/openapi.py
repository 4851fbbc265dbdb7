"""What `/openapi.json` says that FastAPI does not find out by itself."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fireside import __version__
from fireside.server.access import is_open
from fireside.server.accounts import cookies

_REFERENCE = "#/components/schemas/"


def streams(chunk: str) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that can answer with server-sent events, each holding the named model as JSON."""
    described = {"itemSchema": {"type": "object", "properties": {"data": {"$ref": _REFERENCE + chunk}}}}
    return {200: {"content": {"text/event-stream": described}}}


def describe(app: FastAPI, *, extra_models: list[type[BaseModel]]) -> None:
    """Makes `app.openapi()` say what opens each route, and hold `extra_models`, which only streams refer to."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title="Fireside",
                version=__version__,
                summary="A ChatGPT that its user owns: the API that OpenAI's clients speak.",
                routes=app.routes,
            )
            _, defined = models_json_schema(
                [(model, "serialization") for model in extra_models], ref_template=_REFERENCE + "{model}"
            )
            components = schema.setdefault("components", {})
            components["schemas"] = {**defined["$defs"], **components.get("schemas", {})}
            components["securitySchemes"] = {
                "key": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": cookies.name_of("http", "")},
            }
            for path, operations in schema["paths"].items():
                for method, operation in operations.items():
                    if is_open(method.upper(), path):
                        operation["security"] = []
                    elif path.startswith("/api/"):
                        operation["security"] = [{"session": []}]
                    else:  # the empty requirement: a server without keys and people asks for none
                        operation["security"] = [{"key": []}, {"session": []}, {}]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
