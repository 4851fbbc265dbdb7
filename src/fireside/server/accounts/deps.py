"""Who asks, as FastAPI dependencies. The access middleware has found out already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from fireside.server.accounts.identity import identity_of
from fireside.server.accounts.tables import Role, User
from fireside.server.errors import ApiError


@dataclass(frozen=True)
class Client:
    """Where a request comes from."""

    address: str
    user_agent: str


def _client(request: Request) -> Client:
    address = request.client.host if request.client else "local"
    return Client(address[:64], request.headers.get("user-agent", "")[:300])


def _current_user(request: Request) -> User:
    identity = identity_of(request)
    if identity is None or identity.user is None:
        raise ApiError(401, "nobody is signed in", type="authentication_error", code="not_signed_in")
    return identity.user


def _member(user: Annotated[User, Depends(_current_user)]) -> User:
    if user.role is Role.GUEST:
        raise forbidden("guests may not do this")
    return user


def require_admin(user: Annotated[User, Depends(_current_user)]) -> User:
    if user.role is not Role.ADMIN:
        raise forbidden("only administrators may do this")
    return user


def forbidden(message: str) -> ApiError:
    return ApiError(403, message, type="permission_error", code="not_allowed")


CurrentClient = Annotated[Client, Depends(_client)]

# The person as they were when the request came in, apart from any unit of work: to be read, not changed.
CurrentUser = Annotated[User, Depends(_current_user)]
Member = Annotated[User, Depends(_member)]
Admin = Annotated[User, Depends(require_admin)]
