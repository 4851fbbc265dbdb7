"""`/api/session`, `/api/setup`, `/api/users`, `/api/reset`: coming in and going out."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.requests import HTTPConnection

from fireside import __version__
from fireside.server.accounts import cookies, service
from fireside.server.accounts.deps import CurrentClient
from fireside.server.accounts.identity import identity_of
from fireside.server.accounts.schemas import NewPassword, SessionView, Setup, SignIn, SignUp, UserView
from fireside.server.accounts.tables import User
from fireside.server.body import BoundedRoute
from fireside.server.deps import Context, CurrentContext, DatabaseSession

router = APIRouter(prefix="/api", route_class=BoundedRoute, tags=["accounts"])


@router.get("/session")
async def get_session(request: Request, context: CurrentContext) -> SessionView:
    """Who is signed in, and what a page has to know if nobody is."""
    identity = identity_of(request)
    return await _describe(context, identity.user if identity else None)


@router.post("/session")
async def sign_in(
    body: SignIn, request: Request, response: Response, context: CurrentContext, client: CurrentClient
) -> SessionView:
    """Answers with the session's cookie."""
    return await _welcome(
        request,
        response,
        context,
        await service.sign_in(context.accounts, client, body, replaces=cookies.token_of(request)),
    )


@router.delete("/session", status_code=204)
async def sign_out(request: Request, response: Response, session: DatabaseSession) -> None:
    if token := cookies.token_of(request):
        await service.sign_out(session, token)
    cookies.take_back(response, request)


@router.post("/setup", status_code=201)
async def set_up(
    body: Setup, request: Request, response: Response, context: CurrentContext, client: CurrentClient
) -> SessionView:
    """Makes the administrator, by the link that the first start prints, and signs them in."""
    return await _welcome(request, response, context, await service.set_up(context.accounts, client, body))


@router.post("/users", status_code=201)
async def sign_up(
    body: SignUp, request: Request, response: Response, context: CurrentContext, client: CurrentClient
) -> SessionView:
    """Makes an account and signs in."""
    return await _welcome(request, response, context, await service.sign_up(context.accounts, client, body))


@router.post("/reset")
async def reset_password(
    body: NewPassword, request: Request, response: Response, context: CurrentContext, client: CurrentClient
) -> SessionView:
    """Sets a forgotten password anew, by a link of an administrator's, and signs in."""
    return await _welcome(request, response, context, await service.reset_password(context.accounts, client, body))


async def _welcome(
    connection: HTTPConnection, response: Response, context: Context, signed_in: service.SignedIn
) -> SessionView:
    user, token = signed_in
    cookies.give(response, connection, token, context.settings.session_days)
    return await _describe(context, user)


async def _describe(context: Context, user: User | None) -> SessionView:
    return SessionView(
        user=UserView.model_validate(user) if user else None,
        needs_setup=not await context.accounts.has_administrator(),
        sign_up=context.settings.sign_up,
        sharing=context.settings.sharing,
        version=__version__ if user else None,
        locale=user.locale if user else None,
    )
