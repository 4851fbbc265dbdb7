"""Sharing: making links, taking them anew, finding what is behind one, going on with it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import delete, func, insert, or_, select
from sqlalchemy import update as sql_update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer, undefer

from fireside.server.accounts.tables import User
from fireside.server.accounts.tokens import digest, new_token
from fireside.server.chat import conversations
from fireside.server.chat.conversations import not_found
from fireside.server.chat.tables import Conversation, Message
from fireside.server.db.base import new_id, now
from fireside.server.errors import ApiError
from fireside.server.sharing.schemas import ShareWish
from fireside.server.sharing.snapshots import Options, branch, take
from fireside.server.sharing.tables import Share

MAX_SHARES = 500  # of one person
_EXPIRED_KEPT = timedelta(days=30)  # in the list
_DAYS: dict[Literal["day", "week", "month", "never"], int | None] = {"day": 1, "week": 7, "month": 30, "never": None}


async def create(session: AsyncSession, user: User, conversation_id: str, wish: ShareWish) -> Share:
    """Raises `ApiError`: 404 for a conversation or message that is not the person's, 409 for too many links."""
    conversation = await conversations.get(session, user.id, conversation_id)
    await session.execute(delete(Share).where(Share.user_id == user.id, Share.expires_at < now() - _EXPIRED_KEPT))
    if (await session.scalar(select(func.count()).where(Share.user_id == user.id)) or 0) >= MAX_SHARES:
        raise ApiError(409, f"there are {MAX_SHARES} links already; revoke some first", code="too_many_shares")
    token = new_token()
    wish = wish.model_copy(update={"expires": wish.expires or "month"})
    values = await _taken(session, user, conversation, wish)
    session.add(share := Share(id=new_id(), user_id=user.id, token=token, token_hash=digest(token), **values))
    await session.flush()
    return share


async def update(session: AsyncSession, user: User, share_id: str, wish: ShareWish) -> Share:
    """The conversation as it is now, behind the same address. Raises `ApiError` as `create` does."""
    share = await get(session, user.id, share_id)
    conversation = await conversations.get(session, user.id, share.conversation_id)
    # All columns, so that of two who update it at once the later one is shown and told: the ORM would leave out those
    # that it did not see change.
    values = await _taken(session, user, conversation, wish)
    if await session.scalar(sql_update(Share).where(Share.id == share.id).values(values).returning(Share.id)) is None:
        raise not_found("shared link")
    return share


async def get(session: AsyncSession, user_id: str, share_id: str) -> Share:
    """Raises `ApiError` 404."""
    own = select(Share).where(Share.id == share_id, Share.user_id == user_id).options(defer(Share.snapshot))
    if (share := (await session.scalars(own)).one_or_none()) is None:
        raise not_found("shared link")
    return share


async def revoke(session: AsyncSession, user_id: str, share_id: str) -> None:
    """Raises `ApiError` 404."""
    share = await get(session, user_id, share_id)
    await session.execute(delete(Share).where(Share.id == share.id))


async def revoke_all(session: AsyncSession, user_id: str) -> int:
    result = await session.execute(
        delete(Share).where(Share.user_id == user_id).execution_options(synchronize_session=False)
    )
    return result.rowcount  # type: ignore[attr-defined,no-any-return]


async def find(session: AsyncSession, token: str, *, whole: bool = True) -> Share | None:
    """What a link leads to; None, whatever the reason. Found by digest: see `accounts/tokens.py`."""
    valid = (
        select(Share)
        .join(User, User.id == Share.user_id)
        .where(
            Share.token_hash == digest(token),
            User.disabled_at.is_(None),
            or_(Share.expires_at.is_(None), Share.expires_at > now()),
        )
        .options(undefer(Share.snapshot) if whole else defer(Share.snapshot))
    )
    return (await session.scalars(valid)).one_or_none()


async def go_on(session: AsyncSession, user: User, share: Share) -> Conversation:
    """A conversation of the person's own that begins with what was shared. Instructions and thoughts stay behind."""
    time = now()
    turns = share.snapshot["turns"]
    ids = sorted(new_id() for _ in turns)
    conversation = Conversation(
        id=new_id(), user_id=user.id, title=share.title, has_own_title=bool(share.title), current_leaf_id=ids[-1]
    )
    conversation.created_at = conversation.updated_at = time
    session.add(conversation)
    await session.flush()
    rows = [
        {
            "id": message_id,
            "created_at": time,
            "conversation_id": conversation.id,
            "parent_id": parent_id,
            "role": turn["role"],
            "content": turn["content"],
            "model": turn["model"],
            "status": turn["status"],
            "finish_reason": turn["finish_reason"],
            "is_copied": True,
        }
        for message_id, parent_id, turn in zip(ids, [None, *ids], turns, strict=False)
    ]
    await session.execute(insert(Message), rows)
    return conversation


async def _taken(session: AsyncSession, user: User, conversation: Conversation, wish: ShareWish) -> dict[str, Any]:
    """A link's columns that say what is behind it, and until when if that is wished."""
    options = Options(reasoning=wish.reasoning, instructions=wish.instructions)
    path = await branch(session, conversation, wish.leaf_id)
    snapshot = await take(session, user, conversation, path, options)  # or raises, for a path of nothing
    time = now()
    values: dict[str, Any] = {
        "conversation_id": conversation.id,
        "leaf_id": path[-1].id,
        "title": conversation.title,
        "options": {**options},
        "snapshot": {**snapshot},
        "updated_at": time,
    }
    if wish.expires is not None:
        days = _DAYS[wish.expires]
        values["expires_at"] = None if days is None else time + timedelta(days=days)
    return values
