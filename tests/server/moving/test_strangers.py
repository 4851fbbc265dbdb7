"""Nobody sees, changes or finds out about what another shared or imported: every route, as somebody else and nobody."""

from __future__ import annotations

import re

import httpx
from fastapi import FastAPI

from fireside.server.db.base import new_id
from tests.server.chat.people import Person
from tests.server.moving.exports import branched, encoded
from tests.server.moving.uploads import over, trees, upload


async def test_every_route(ada: Person, bob: Person, app: FastAPI) -> None:
    made = await upload(ada, encoded([branched()]))
    await over(ada, made["id"])
    (tree,) = await trees(ada)
    link = await ada.post(f"conversations/{tree['id']}/shares")
    ids = {"import_id": made["id"], "share_id": link["id"], "conversation_id": tree["id"]}
    tags = {"sharing", "moving"}
    routes = [
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method, described in methods.items()
        if tags & set(described["tags"])
    ]
    with_id = [route for route in routes if re.search(r"\{\w+\}", route[1])]
    assert len(routes) == 12 and len(with_id) == 6
    nobody = httpx.AsyncClient(transport=bob.http._transport, base_url="http://localhost:8000")
    for method, path in routes:
        request = {"json": {}} if method == "POST" else {}
        query = "?format=json" if path.endswith("/export") else ""
        refused = await nobody.request(method, path.format(**ids) + query, headers={"X-Fireside": "1"}, **request)  # type: ignore[arg-type]
        assert refused.status_code == 401, (method, path)
    for method, path in with_id:
        request = {"json": {}} if method == "POST" else {}
        query = "?format=json" if path.endswith("/export") else ""
        answers = [
            await bob.http.request(method, path.format(**which) + query, **request)  # type: ignore[arg-type]
            for which in (ids, dict.fromkeys(ids, new_id()))
        ]
        assert answers[0].status_code == 404 and answers[0].text == answers[1].text, (method, path)
    for path in ("shares", "imports"):
        assert (await bob.get(path))["items"] == []
        assert (await bob.get(path, cursor="f" * 32))["items"] == []
    assert (await bob.get("shares", conversation=tree["id"]))["items"] == []
    assert (await bob.http.delete("/api/shares")).json() == {"revoked": 0}
    assert (await ada.get("shares"))["items"] == [link] and await trees(ada) == [tree]
