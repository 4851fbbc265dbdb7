"""What `/openapi.json` says that FastAPI does not find out by itself."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fireside import __version__

_REFERENCE = "#/components/schemas/"


def streams(chunk: str) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that can answer with server-sent events, each holding the named model as JSON."""
    described = {"itemSchema": {"type": "object", "properties": {"data": {"$ref": _REFERENCE + chunk}}}}
    return {200: {"content": {"text/event-stream": described}}}


def describe(app: FastAPI, *, extra_models: list[type[BaseModel]], open_paths: frozenset[str]) -> None:
    """Makes `app.openapi()` name the bearer key, and hold `extra_models`, which only streams refer to."""

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
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, operations in schema["paths"].items():
                for operation in operations.values():
                    # The empty requirement: a server without configured keys asks for none.
                    operation["security"] = [] if path in open_paths else [{"key": []}, {}]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
