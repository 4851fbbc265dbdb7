"""One error envelope for every failure over HTTP, that of OpenAI's API: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fireside.assistant.errors import PromptError
from fireside.engine.client import EngineBusy, EngineError, EngineUnavailable, RequestRejected
from fireside.server.db.trouble import is_gone, may_pass

RETRY_AFTER_RESTART = 5  # seconds; about what a worker takes to start with a warm disk

_CODES_OF_REJECTION = {"context_length": "context_length_exceeded", "grammar": "invalid_grammar"}
_PARAMS_OF_REJECTION = {"context_length": "messages", "grammar": "response_format"}

logger = logging.getLogger(__name__)


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """What every answer with a status of 400 or more holds."""

    error: ErrorDetail


class ApiError(HTTPException):
    """A failure that the caller is told about. `type` and `code` are OpenAI's words where it has them."""

    def __init__(
        self,
        status_code: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status_code, message, headers)
        self.type = type
        self.param = param
        self.code = code

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.detail, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        return Response(msgspec.json.encode(self.body), self.status_code, self.headers, "application/json")


class ClientDisconnected(ApiError):
    """The client hung up. Nobody reads the answer; 499 is what nginx and the metrics call it."""

    def __init__(self) -> None:
        super().__init__(499, "the client closed the connection", type="client_error", code="client_disconnected")


def invalid(param: str, message: str, code: str | None = None) -> ApiError:
    """A 400 that names the parameter at fault."""
    return ApiError(400, f"{param}: {message}", param=param, code=code)


def not_found(what: str) -> ApiError:
    """The same for what never was, what is gone, and what is somebody else's."""
    return ApiError(404, f"there is no such {what}", code="not_found")


def as_api_error(exc: Exception) -> ApiError | None:
    """What the caller is told of `exc`; None if it is no business of theirs (a fault of ours)."""
    match exc:
        case ApiError():
            return exc
        case EngineBusy():
            retry_after = str(max(1, math.ceil(exc.retry_after)))
            return ApiError(
                429,
                str(exc),
                type="rate_limit_error",
                code="queue_full",
                headers={"Retry-After": retry_after},
            )
        case EngineUnavailable():
            return ApiError(
                503,
                str(exc),
                type="server_error",
                code="engine_unavailable",
                headers={"Retry-After": str(RETRY_AFTER_RESTART)},
            )
        case exc if may_pass(exc):
            logger.error("the database cannot be used just now: %s", getattr(exc, "orig", None) or exc)
            return ApiError(
                503,
                "the database cannot be used just now, so nothing was changed; try again shortly",
                type="server_error",
                code="database_unavailable",
                headers={"Retry-After": str(RETRY_AFTER_RESTART)},
            )
        case exc if is_gone(exc):
            logger.info("deleted in the meantime: %s", getattr(exc, "orig", None) or exc)
            return ApiError(404, "what this is about was deleted in the meantime", code="not_found")
        case RequestRejected():
            return ApiError(
                400,
                str(exc),
                param=_PARAMS_OF_REJECTION.get(exc.kind),
                code=_CODES_OF_REJECTION.get(exc.kind, "invalid_request"),
            )
        case RequestValidationError():
            return _from_validation(exc)
        case PromptError():
            return ApiError(400, str(exc), param=exc.param, code=exc.code)
        case HTTPException():
            return _from_status(exc)
    return None


def internal_error() -> ApiError:
    return ApiError(
        500, "the server failed to handle this request; its log says why", type="server_error", code="internal_error"
    )


def install(app: FastAPI) -> None:
    """Makes every failure of `app`, routing and validation included, answer in the envelope."""

    async def handle(_: Request, exc: Exception) -> Response:
        return (as_api_error(exc) or internal_error()).response()

    for kind in (HTTPException, RequestValidationError, PromptError, EngineError, Exception):
        app.add_exception_handler(kind, handle)


def _from_status(exc: HTTPException) -> ApiError:
    status = HTTPStatus(exc.status_code)
    return ApiError(status.value, exc.detail, code=status.name.lower(), headers=exc.headers)


def _from_validation(exc: RequestValidationError) -> ApiError:
    """Tells of the error that lies deepest: in a union it belongs to the branch that fits best."""
    errors = exc.errors()
    error = max(errors, key=lambda e: len(e["loc"]))
    where, *path = error["loc"]
    if where == "body" and not path:
        return ApiError(
            400, "the body must be a JSON object, sent with Content-Type: application/json", code="invalid_json"
        )
    if error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        path = [*path, error["ctx"]["discriminator"].strip("'")]
    param = _param(path, exc.body) if where == "body" else ".".join(map(str, path))
    match error["type"]:
        case "extra_forbidden":
            return invalid(param, "is not a parameter of this request", "unknown_parameter")
        case "missing":
            return invalid(param, "is required", "missing_required_parameter")
        case "union_tag_not_found":
            return invalid(param, "is required", "missing_required_parameter")
        case "union_tag_invalid":
            message = f"must be one of {error['ctx']['expected_tags']}, not {error['ctx']['tag']!r:.80}"
            return invalid(param, message, "invalid_value")
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return invalid(param, message, "invalid_value")


def _param(path: Sequence[int | str], body: Any) -> str:
    """`messages[0].content` from pydantic's location, without the names of union branches that it mixes in."""
    param = ""
    value = body
    for i, part in enumerate(path):
        if isinstance(part, int) and isinstance(value, list):
            param += f"[{part}]"
            value = value[part] if part < len(value) else None
        elif isinstance(value, dict) and isinstance(part, str) and (part in value or i == len(path) - 1):
            param += f".{part}" if param else part
            value = value.get(part)
    return param
