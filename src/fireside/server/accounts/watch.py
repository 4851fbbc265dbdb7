"""`Watch`: who is signed out, disabled or demoted, or has lost a key, hears no more of what they had opened before.

Their requests are refused anyway; this is for answers that last, and for requests that take long to arrive, which were
let in by their heads. One look a second for all who listen, at the database, since a session can be ended by another
program too (`fireside admin`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fireside.server.accounts.identity import Identity, still_good
from fireside.server.db.database import Database
from fireside.server.errors import ApiError

LOOK_SECONDS = 1.0
MAX_OPEN_EACH = 64  # answers that a person's browsers and programs wait for at the same time

logger = logging.getLogger(__name__)


class Watch:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: dict[Identity, set[asyncio.Event]] = {}
        self._by_user: Counter[str] = Counter()
        self._looking: asyncio.Task[None] | None = None

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait((self._looking,))

    def check_room(self, user_id: str) -> None:
        """Raises `ApiError` 429 for one who has as many answers open as anybody needs."""
        if self._by_user[user_id] >= MAX_OPEN_EACH:
            raise ApiError(
                429,
                f"{MAX_OPEN_EACH} of your connections listen already; close some of them",
                type="rate_limit_error",
                code="too_many_listeners",
                headers={"Retry-After": "5"},
            )

    async def serve(self, identity: Identity, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs `app`, for whom the client has hung up once `identity` is good no longer."""
        has_all = is_begun = is_ended = False
        loop = asyncio.get_running_loop()
        let_in = loop.time()

        async def watched_receive() -> Message:
            nonlocal has_all
            if not has_all:
                message = await receive()
                has_all = not message.get("more_body", False)
                is_late = loop.time() - let_in > LOOK_SECONDS
                if has_all and is_late and identity not in await still_good(self._database, [identity]):
                    return {"type": "http.disconnect"}
                return message
            with self._watching(identity) as gone:  # nothing but the client's hanging up is left to wait for
                hang_up, told = asyncio.ensure_future(receive()), asyncio.create_task(gone.wait())
                try:
                    await asyncio.wait((hang_up, told), return_when=asyncio.FIRST_COMPLETED)
                    return hang_up.result() if hang_up.done() else {"type": "http.disconnect"}
                finally:
                    hang_up.cancel()
                    told.cancel()

        async def watched_send(message: MutableMapping[str, Any]) -> None:
            nonlocal is_begun, is_ended
            is_begun = True
            is_ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        await app(scope, watched_receive, watched_send)
        if is_begun and not is_ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    @contextmanager
    def _watching(self, identity: Identity) -> Iterator[asyncio.Event]:
        gone = asyncio.Event()
        self._open.setdefault(identity, set()).add(gone)
        user_id = identity.user.id if identity.user else ""
        self._by_user[user_id] += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            yield gone
        finally:
            self._open[identity].discard(gone)
            if not self._open[identity]:
                del self._open[identity]
            self._by_user[user_id] -= 1
            if not self._by_user[user_id]:
                del self._by_user[user_id]

    async def _look(self) -> None:
        while self._open:
            await asyncio.sleep(LOOK_SECONDS)
            asked = list(self._open)  # not those who come while the database answers
            try:
                good = await still_good(self._database, asked)
            except Exception as error:
                logger.warning("who is still signed in cannot be looked up just now: %s", error)
                continue
            for identity in asked:
                if identity not in good:
                    for gone in self._open.get(identity, ()):
                        gone.set()
