"""`/api/runs`, and chats that leave no trace."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from fireside.server.accounts.deps import CurrentUser
from fireside.server.body import BoundedRoute
from fireside.server.chat.instructions import models_own, system_prompt
from fireside.server.chat.runs import service
from fireside.server.chat.runs.plan import Plan, Turn
from fireside.server.chat.schemas import Parameters, RunOut, TemporaryChat, TemporaryRun
from fireside.server.db.base import new_id
from fireside.server.deps import CurrentContext
from fireside.server.errors import invalid
from fireside.server.openapi import streams
from fireside.server.paging import Id
from fireside.server.streaming import EventStream

router = APIRouter(route_class=BoundedRoute, tags=["runs"])


@router.get("/api/runs/{run_id}")
async def get_run(run_id: Id, user: CurrentUser, context: CurrentContext) -> RunOut:
    return await service.get(context, user.id, run_id)


@router.post("/api/runs/{run_id}/stop")
async def stop_run(run_id: Id, user: CurrentUser, context: CurrentContext) -> RunOut:
    """Answers once it has ended: its message holds what was written, and the engine is free. Twice is no error."""
    await service.get(context, user.id, run_id)
    await context.runs.stop(run_id)
    return await service.get(context, user.id, run_id)


@router.get("/api/runs/{run_id}/events", response_class=Response, responses=streams("RunEventOut"))
async def get_events(
    run_id: Id,
    user: CurrentUser,
    context: CurrentContext,
    last_event_id: Annotated[str | None, Header(pattern="^[0-9]{1,9}$")] = None,
    after: Annotated[int | None, Query(ge=0, lt=10**9, description="As the header Last-Event-ID, which wins.")] = None,
) -> Response:
    """What the run says, as server-sent events numbered from 1: those behind the given number, then as they come.

    The last one is of type `done`. Whoever connects again with the last number gets every event once.
    """
    await service.get(context, user.id, run_id)
    context.watch.check_room(user.id)
    start = int(last_event_id) if last_event_id is not None else after or 0
    return EventStream(context.runs.events(run_id, start))


@router.post("/api/temporary", status_code=201)
async def start_temporary(body: TemporaryChat, user: CurrentUser, context: CurrentContext) -> TemporaryRun:
    """Answers a conversation that nothing keeps: the run and its events are in memory, and go soon after its end."""
    if body.messages[-1].role == "assistant":
        raise invalid("messages", "must end with the user's", "invalid_value")
    model = context.models.get(body.model) if body.model is not None else context.models.default
    parameters = (body.parameters or Parameters()).over(models_own(context.models, model.name))
    plan = Plan(
        run_id=new_id(),
        user_id=user.id,
        model=model,
        turns=[Turn(turn.role, turn.content) for turn in body.messages],
        system=system_prompt(parameters.system or "", user.instructions),
        parameters=parameters,
    )
    with context.runs.room(user.id), context.runs.launching([plan]):
        pass  # there is nothing to commit
    return TemporaryRun(run=await service.get(context, user.id, plan.run_id))
