"""`/api/admin/feedback`: how the models stand, and feedback to train on. For administrators alone."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response, StreamingResponse

from fireside.server.accounts import audit
from fireside.server.accounts.deps import Admin, CurrentClient, require_admin
from fireside.server.body import BoundedRoute
from fireside.server.deps import CurrentContext, DatabaseSession
from fireside.server.feedback.export import Format, export
from fireside.server.feedback.leaderboard import leaderboard
from fireside.server.feedback.schemas import Leaderboard

router = APIRouter(
    prefix="/api/admin/feedback",
    route_class=BoundedRoute,
    tags=["administration"],
    dependencies=[Depends(require_admin)],
)


@router.get("/leaderboard")
async def get_leaderboard(session: DatabaseSession) -> Leaderboard:
    """Wins, losses and ties in blind comparisons, and thumbs: counts alone."""
    return await leaderboard(session)


@router.get(
    "/export",
    response_class=Response,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
async def export_feedback(
    admin: Admin,
    context: CurrentContext,
    client: CurrentClient,
    format: Annotated[Format, Query(description="What the rows are for: examples, pairs, or single answers.")] = "sft",
    weak: Annotated[bool, Query(description="Answers that were given again count, even if nobody said which.")] = False,
) -> Response:
    """Feedback with consent, one JSON object a line. People are called by ids that are used nowhere else."""
    async with context.database.session() as session:
        audit.note(session, "feedback_exported", by=admin.id, address=client.address, format=format)
    return StreamingResponse(
        export(context.database, format, weak=weak),
        media_type="application/x-ndjson",
        headers={"Content-Disposition": f'attachment; filename="feedback-{format}.jsonl"'},
    )
