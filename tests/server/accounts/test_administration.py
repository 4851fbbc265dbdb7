"""What administrators do, and what is written down of it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx
from fastapi import FastAPI

from fireside.server.accounts.tables import AuditEntry, Role
from fireside.server.db.base import now
from tests.server.accounts.people import (
    PASSWORD,
    browser,
    code_of,
    context_of,
    is_signed_in,
    join,
    person,
    row_of,
    set_up,
)


async def audit_of(ada: httpx.AsyncClient) -> list[str]:
    """Oldest first."""
    return [entry["action"] for entry in reversed((await ada.get("/api/admin/audit")).json()["items"])]


async def test_people_are_listed_and_found(app: FastAPI) -> None:
    ada = await set_up(app)
    for name in ("Bob", "Percent%", "Under_score"):
        response = await browser(app).post("/api/setup", json={})
        assert response.status_code == 400
        await join(app, name)
    everybody = (await ada.get("/api/admin/users")).json()["items"]
    assert [user["name"] for user in everybody] == ["Under_score", "Percent%", "Bob", "Ada"]
    assert not any("password" in field for field in everybody[0])
    for wanted, found in (
        ("bOB", ["Bob"]),
        ("example.com", ["Under_score", "Percent%", "Bob", "Ada"]),
        ("%", ["Percent%"]),  # no wildcard
        ("_", ["Under_score"]),
        ("\\", []),
        ("'", []),
    ):
        page = (await ada.get("/api/admin/users", params={"q": wanted})).json()
        assert [user["name"] for user in page["items"]] == found, wanted
    assert (await ada.get("/api/admin/users", params={"q": "a\0"})).status_code == 400


async def test_roles_change_at_once(app: FastAPI) -> None:
    ada = await set_up(app)
    bob = await join(app, "Bob")
    path = f"/api/admin/users/{(await row_of(app, 'Bob')).id}"
    assert (await ada.patch(path, json={"role": "admin"})).json()["role"] == "admin"
    assert (await bob.get("/api/admin/users")).status_code == 200
    assert (await ada.patch(path, json={"role": "guest"})).json()["role"] == "guest"
    assert (await bob.get("/api/admin/users")).status_code == 403
    assert (await ada.patch(path, json={"disabled": True})).json()["disabled_at"] is not None
    assert not await is_signed_in(bob)
    assert (await ada.patch(path, json={"disabled": False})).json()["disabled_at"] is None
    assert not await is_signed_in(bob)  # but may sign in again
    credentials = {"email": "bob@example.com", "password": PASSWORD}
    assert (await bob.post("/api/session", json=credentials)).status_code == 200
    assert (await ada.delete(path)).status_code == 204
    assert not await is_signed_in(bob)
    assert (
        code_of(await ada.delete(path)) == code_of(await ada.patch(path, json={"role": "admin"})) == (404, "not_found")
    )
    assert (await ada.patch(path.replace("users", "nothing"), json={})).status_code == 404


async def test_an_administrator_is_always_left(app: FastAPI) -> None:
    ada = await set_up(app)
    path = f"/api/admin/users/{(await row_of(app, 'Ada')).id}"
    for body in ({"role": "member"}, {"disabled": True}, {"role": "guest", "disabled": True}):
        assert code_of(await ada.patch(path, json=body)) == (409, "last_administrator")
    assert code_of(await ada.delete(path)) == (409, "last_administrator")
    assert (await ada.patch(path, json={"role": "admin"})).status_code == 200
    await join(app, "Bob", Role.ADMIN)
    assert (await ada.patch(path, json={"role": "member"})).status_code == 200
    assert code_of(await ada.patch(path, json={"role": "admin"})) == (403, "not_allowed")


async def test_two_who_take_each_others_place_do_so_in_turn(app: FastAPI) -> None:
    ada = await set_up(app)
    bob = await join(app, "Bob", Role.ADMIN)
    ids = {name: (await row_of(app, name)).id for name in ("Ada", "Bob")}
    answers = await asyncio.gather(
        ada.patch(f"/api/admin/users/{ids['Bob']}", json={"role": "member"}),
        bob.patch(f"/api/admin/users/{ids['Ada']}", json={"role": "member"}),
    )
    assert sorted(answer.status_code for answer in answers) in ([200, 403], [200, 409])
    assert [(await row_of(app, name)).role for name in ids].count(Role.ADMIN) == 1


async def test_invitations(app: FastAPI) -> None:
    ada = await set_up(app)
    links = [(await ada.post("/api/admin/invitations", json={"role": "guest"})).json() for _ in range(2)]
    assert links[0]["path"].startswith("/join#")
    assert (await ada.delete(f"/api/admin/invitations/{links[0]['id']}")).status_code == 204
    tokens = [link["path"].partition("#")[2] for link in links]
    revoked = await browser(app).post("/api/users", json=person("Bob", token=tokens[0]))
    assert code_of(revoked) == (404, "link_not_found")
    used = await browser(app).post("/api/users", json=person("Bob", token=tokens[1]))
    assert used.json()["user"]["role"] == "guest"
    (listed,) = (await ada.get("/api/admin/invitations")).json()["items"]
    assert (listed["role"], listed["used_by"]) == ("guest", used.json()["user"]["id"])
    assert listed["used_at"] and listed["created_by"]
    assert code_of(await ada.delete(f"/api/admin/invitations/{links[1]['id']}")) == (404, "not_found")
    for body in ({"role": "king"}, {"expires_in_days": 0}, {"expires_in_days": 91}):
        assert (await ada.post("/api/admin/invitations", json=body)).status_code == 400


async def test_what_is_written_down(app: FastAPI) -> None:
    ada = await set_up(app)
    bob = await join(app, "Bob")
    await bob.delete("/api/session")
    await bob.post("/api/session", json={"email": "bob@example.com", "password": "wrong"})
    await bob.post("/api/session", json={"email": "bob@example.com", "password": PASSWORD})
    id = (await row_of(app, "Bob")).id
    await ada.patch(f"/api/admin/users/{id}", json={"role": "guest"})
    await ada.post(f"/api/admin/users/{id}/reset")
    await ada.delete(f"/api/admin/users/{id}")
    assert await audit_of(ada) == [
        "setup", "invitation_made", "sign_up", "sign_in_failed", "sign_in",
        "user_changed", "reset_made", "user_removed",
    ]  # fmt: skip
    removed, _, changed, *_ = (await ada.get("/api/admin/audit")).json()["items"]
    assert (removed["target"], removed["address"]) == (id, "127.0.0.1")
    assert (changed["detail"], changed["user_id"]) == ({"role": "guest"}, (await row_of(app, "Ada")).id)


async def test_who_is_seen_and_has_keys(app: FastAPI) -> None:
    ada = await set_up(app)
    bob = await join(app, "Bob")
    keys = [(await bob.post("/api/keys", json={"name": name})).json() for name in ("one", "two")]
    await bob.delete(f"/api/keys/{keys[0]['id']}")
    listed = (await ada.get("/api/admin/users")).json()["items"]
    assert [(user["name"], user["keys"], user["last_seen_at"] is not None) for user in listed] == [
        ("Bob", 1, True),
        ("Ada", 0, True),
    ]
    await bob.delete("/api/session")
    assert (await ada.get("/api/admin/users")).json()["items"][0]["last_seen_at"] is None


async def test_the_log_is_searched_by_person_and_action(app: FastAPI) -> None:
    ada = await set_up(app)
    bob = await join(app, "Bob")
    await join(app, "Eve")
    id = (await row_of(app, "Bob")).id
    await ada.patch(f"/api/admin/users/{id}", json={"role": "guest"})

    async def found(**query: str) -> list[tuple[str, str | None, str | None]]:
        items = (await ada.get("/api/admin/audit", params=query)).json()["items"]
        return [(item["action"], item["user_name"], item["target_name"]) for item in items]

    assert await found(q="BOB@") == [("user_changed", "Ada", "Bob"), ("sign_up", "Bob", None)]
    assert await found(action="sign_up") == [("sign_up", "Eve", None), ("sign_up", "Bob", None)]
    assert await found(q="bob", action="user_changed") == [("user_changed", "Ada", "Bob")]
    assert await found(q="%") == await found(action="nothing") == []
    first = (await ada.get("/api/admin/audit", params={"q": "bob", "limit": 1})).json()
    assert [entry for entry in await found(q="bob", cursor=first["next_cursor"])] == [("sign_up", "Bob", None)]
    assert (await ada.get("/api/admin/audit", params={"action": "x'"})).status_code == 400
    await bob.delete("/api/session")


async def test_what_is_old_is_forgotten(app: FastAPI) -> None:
    ada = await set_up(app)
    async with context_of(app).database.session() as session:
        for days in (400, 364):
            session.add(AuditEntry(action=f"of_{days}", created_at=now() - timedelta(days=days)))
    async with context_of(app).accounts.pruned():
        for _ in range(200):
            if "of_400" not in (actions := await audit_of(ada)):
                break
            await asyncio.sleep(0.01)
    assert actions.count("of_400") == 0 and actions.count("of_364") == 1
