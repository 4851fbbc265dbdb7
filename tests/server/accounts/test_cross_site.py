"""Cross-site request forgery: a page of somebody else's, in a browser that is signed in with us."""

from __future__ import annotations

import re

import httpx
import pytest
from fastapi import FastAPI

from tests.server.accounts.people import browser, code_of, is_signed_in, join, set_up
from tests.server.test_access import routes

HOSTILE = [
    {"X-Fireside": ""},
    {"X-Fireside": "0"},
    {"Origin": "https://attacker.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://localhost:8000.attacker.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
]


async def sent(client: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    """With all that a browser adds by itself, the cookie included."""
    return await client.request(method, re.sub(r"\{\w+\}", "0" * 32, path), headers=headers, json={})


@pytest.mark.parametrize("headers", HOSTILE, ids=str)
async def test_no_route_is_open_to_other_sites(app: FastAPI, headers: dict[str, str]) -> None:
    """Signing in, too: else a page could sign somebody in as another, and read what they write."""
    ada = await set_up(app)
    changing = [(method, path) for method, path in routes(app) if path.startswith("/api/") and method != "GET"]
    assert len(changing) > 12
    for method, path in changing:
        assert code_of(await sent(ada, method, path, headers)) == (403, "csrf"), (method, path)
    for path in ("/v1/chat/completions", "/tokenize"):  # by cookie, as our page asks
        assert code_of(await sent(ada, "POST", path, headers)) == (403, "csrf"), path
    assert await is_signed_in(ada)


async def test_our_own_page_is_heard(app: FastAPI) -> None:
    ada = await set_up(app)
    same = {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}
    assert (await ada.post("/tokenize", json={"prompt": "a"}, headers=same)).status_code == 200
    assert (await ada.post("/tokenize", json={"prompt": "a"})).status_code == 200
    assert (await ada.delete("/api/session", headers=same)).status_code == 204


async def test_reading_needs_no_header_and_is_shared_with_no_other_site(app: FastAPI) -> None:
    ada = await join(app, "Ada")
    response = await ada.get("/api/me", headers={"X-Fireside": "", "Origin": "https://attacker.example"})
    assert response.status_code == 200
    assert not any(name.startswith("access-control-") for name in response.headers)
    preflight = {"Origin": "https://attacker.example", "Access-Control-Request-Method": "POST"}
    response = await ada.options("/api/session", headers=preflight | {"Access-Control-Request-Headers": "x-fireside"})
    assert response.status_code >= 400
    assert not any(name.startswith("access-control-") for name in response.headers)


async def test_a_form_cannot_be_sent(app: FastAPI) -> None:
    """What a page can send without asking is a form or plain text; neither is read as JSON."""
    await set_up(app)
    client = browser(app)
    for content_type in ("text/plain", "application/x-www-form-urlencoded"):
        body = b'{"email": "ada@example.com", "password": "correct horse battery staple"}'
        response = await client.post("/api/session", content=body, headers={"Content-Type": content_type})
        assert response.status_code == 400
