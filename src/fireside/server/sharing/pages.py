"""The pages behind shared links, rendered in threads and kept for a while: anybody may ask for one, and as often as
they like."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from fastapi import Response

from fireside.server.db.database import Database
from fireside.server.documents.words import Words
from fireside.server.sharing import service
from fireside.server.sharing.tables import Share
from fireside.settings import Settings

_KEPT = 8 << 20  # bytes of pages
_RENDERED_AT_ONCE = 2

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex, nofollow",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class SharedPages:
    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._kept: OrderedDict[tuple[str, object, str], bytes] = OrderedDict()
        self._size = 0
        self._rendering = asyncio.Semaphore(_RENDERED_AT_ONCE)

    async def respond(self, token: str, words: Words) -> Response:
        # Whether or not there is such a link, one query by a digest is made, and the same kind of page comes back.
        async with self._database.session() as session:
            share = await service.find(session, token, whole=False)
        if share is None or not self._settings.sharing:
            from fireside.server.documents.page import gone_page

            return self._response(gone_page(words).encode(), 404)
        key = (share.id, share.updated_at, words.lang)
        if (page := self._kept.get(key)) is None:
            page = await self._render(token, words)
            if page is None:  # revoked in this moment
                return await self.respond(token, words)
            self._keep(key, page)
        return self._response(page, 200)

    async def _render(self, token: str, words: Words) -> bytes | None:
        async with self._rendering:
            async with self._database.session() as session:
                share = await service.find(session, token)
            return None if share is None else await asyncio.to_thread(_page, share, words)

    def _keep(self, key: tuple[str, object, str], page: bytes) -> None:
        if key not in self._kept:
            self._kept[key] = page
            self._size += len(page)
        while self._size > _KEPT and self._kept:
            _, old = self._kept.popitem(last=False)
            self._size -= len(old)

    def _response(self, page: bytes, status: int) -> Response:
        from fireside.server.documents.page import policy

        headers = _HEADERS | {"Content-Security-Policy": f"{policy()}; frame-ancestors 'none'"}
        return Response(page, status, headers, "text/html; charset=utf-8")


def _page(share: Share, words: Words) -> bytes:
    from fireside.server.documents.page import conversation_page, day

    about = words.shared.format(date=day(share.updated_at))
    if share.expires_at is not None:
        about += f" · {words.until.format(date=day(share.expires_at))}"
    return conversation_page(
        words,
        share.title,
        share.snapshot["turns"],
        about=about,
        instructions=share.snapshot["instructions"],
        go_on=f"/continue#{share.token}",
    ).encode("utf-8", "replace")
