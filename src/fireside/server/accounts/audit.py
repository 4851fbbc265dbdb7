"""Writing down what administrators and sign-ins do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.accounts.tables import AuditEntry
from fireside.server.db.base import now


def note(
    session: AsyncSession,
    action: str,
    *,
    by: str | None,
    address: str | None,
    target: str | None = None,
    **detail: Any,
) -> None:
    """Within the unit of work that it tells of, so that neither is there without the other."""
    session.add(AuditEntry(user_id=by, address=address, action=action, target=target, detail=detail))


async def prune(session: AsyncSession, days: int) -> None:
    """Forgets what is older."""
    old = AuditEntry.created_at < now() - timedelta(days=days)
    await session.execute(delete(AuditEntry).where(old).execution_options(synchronize_session=False))
