"""Which runs somebody may see: their own, from memory if they are temporary."""

from __future__ import annotations

from sqlalchemy import select

from fireside.server.chat.conversations import not_found
from fireside.server.chat.schemas import RunOut
from fireside.server.chat.tables import Run
from fireside.server.deps import Context


async def get(context: Context, user_id: str, run_id: str) -> RunOut:
    """Raises `ApiError` 404. Holds no connection to the database afterwards: streams last."""
    live = context.runs.find(run_id)
    if live is not None and live.is_temporary and live.user_id == user_id:
        return RunOut(
            id=live.id,
            created_at=live.created_at,
            conversation_id=None,
            message_id=None,
            status=live.status.value,
            finished_at=live.finished_at,
            error=live.ending.error if live.ending else None,  # type: ignore[arg-type]
        )
    async with context.database.session() as session:
        own = select(Run).where(Run.id == run_id, Run.user_id == user_id)
        if (run := (await session.scalars(own)).one_or_none()) is None:
            raise not_found("run")
        return RunOut.model_validate(run)
