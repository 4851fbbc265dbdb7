"""Setup, signing in and out, and what a browser is given."""

from __future__ import annotations

import httpx
from fastapi import FastAPI

from tests.server.accounts.people import PASSWORD, browser, context_of, person, set_up


async def test_the_first_start_makes_one_administrator(app: FastAPI, http: httpx.AsyncClient) -> None:
    before = (await http.get("/api/session")).json()
    assert before == {"user": None, "needs_setup": True, "sign_up": "invitation", "version": None, "locale": None}
    token = await context_of(app).accounts.new_setup_token()
    ada, eve = browser(app), browser(app)
    wrong = await eve.post("/api/setup", json=person("Eve", token="wrong"))
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (404, "link_not_found")
    response = await ada.post("/api/setup", json=person("Ada", token=token))
    assert response.status_code == 201
    assert response.json()["user"]["role"] == "admin"
    again = await eve.post("/api/setup", json=person("Eve", token=token))
    assert (again.status_code, again.json()["error"]["code"]) == (404, "link_not_found")
    assert await context_of(app).accounts.new_setup_token() is None
    after = (await ada.get("/api/session")).json()
    assert (after["user"]["email"], after["needs_setup"]) == ("ada@example.com", False)
    assert after["version"]


async def test_signing_in_and_out(app: FastAPI, http: httpx.AsyncClient) -> None:
    await set_up(app)
    ada = browser(app)
    response = await ada.post("/api/session", json={"email": " ADA@example.com ", "password": PASSWORD})
    assert response.status_code == 200
    cookie = response.headers["set-cookie"].lower()
    assert cookie.startswith("fireside_session=") and "httponly" in cookie and "samesite=lax" in cookie
    assert "path=/" in cookie and "secure" not in cookie and "domain" not in cookie
    assert (await ada.get("/api/session")).json()["user"]["name"] == "Ada"
    kept = dict(ada.cookies)
    assert (await ada.delete("/api/session")).status_code == 204
    assert not ada.cookies
    ada.cookies.update(kept)
    assert (await ada.get("/api/session")).json()["user"] is None
