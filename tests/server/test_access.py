"""Who may come in. Routes are enumerated, so that one added later cannot be forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route

from fireside.server.access import OPEN_PATHS
from fireside.server.body import BoundedRoute
from fireside.server.page import PAGE_PATHS
from tests.server.scripted_app import Scripted, scripted_app

SHARED = "/s/{token:path}"
KEYS = ("correct-horse", "battery-staple")


@pytest.fixture
def app() -> FastAPI:
    return scripted_app(Scripted(), api_keys=KEYS)


@pytest.fixture
async def open_http() -> AsyncIterator[httpx.AsyncClient]:
    """A server without keys, which listens on loopback."""
    app = scripted_app(Scripted())
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
    ):
        yield client


def routes(app: FastAPI) -> list[tuple[str, str]]:
    found = []

    def walk(route: BaseRoute) -> None:
        if isinstance(route, Route):
            path = route.path.replace("{model:path}", "tiny").replace("/assets/{name}", "/assets/flame.svg")
            found.extend((method, path) for method in route.methods or ())
            return
        nested = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        assert nested, f"{route!r} is of a kind that this test does not know"
        for inner in nested:
            walk(inner)

    for route in app.routes:
        walk(route)
    return found


async def test_every_route_refuses_a_missing_and_a_wrong_key(app: FastAPI, http: httpx.AsyncClient) -> None:
    paths = routes(app)
    assert {("POST", "/v1/chat/completions"), ("GET", "/metrics"), ("GET", "/openapi.json")} <= set(paths)
    for method, path in paths:
        for header in (None, "Bearer wrong", "Bearer", "Basic correct-horse", "correct-horse", f"Bearer {KEYS[0]}x"):
            headers = {} if header is None else {"Authorization": header}
            response = await http.request(method, path, headers=headers)
            if path in OPEN_PATHS | {"/assets/flame.svg", *PAGE_PATHS}:
                assert response.status_code == 200, (method, path)
                continue
            if path == SHARED:  # whose secret is in the link: tests/server/sharing
                assert response.status_code == 404
                continue
            if path.startswith("/api/"):  # which no key opens: tests/server/accounts/test_strangers.py
                assert (response.status_code == 200) == ((method, path) == ("GET", "/api/session")), (method, path)
                continue
            assert response.status_code == 401, (method, path, header)
            assert response.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                assert response.json()["error"]["code"] == "invalid_api_key"


async def test_the_open_paths_are_these_and_tell_nothing(http: httpx.AsyncClient) -> None:
    assert {"/healthz", "/readyz", "/", "/sw.js", "/manifest.webmanifest"} == OPEN_PATHS
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    assert (await http.get("/readyz")).json() == {"status": "ready"}
    assert "tiny" not in (await http.get("/")).text


@pytest.mark.parametrize("path", ["//v1/models", "/v1/models/", "/healthz/", "/nothing", "/healthz/../v1/models"])
async def test_odd_paths_are_no_way_around(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 401


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_each_key_opens_every_route(app: FastAPI, http: httpx.AsyncClient, key: str, scheme: str) -> None:
    for method, path in routes(app):
        if path.startswith("/api/") or path == SHARED:
            continue
        response = await http.request(method, path, headers={"Authorization": f"{scheme} {key}"})
        assert response.status_code in (200, 400), (method, path)


def test_every_route_bounds_its_body(app: FastAPI) -> None:
    for route in app.routes:
        for inner in getattr(getattr(route, "original_router", None), "routes", [route]):
            assert not isinstance(inner, APIRoute) or isinstance(inner, BoundedRoute), inner


async def test_keys_are_asked_for_before_the_body_is_read(http: httpx.AsyncClient) -> None:
    async def never_sent() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    assert (await http.post("/v1/chat/completions", content=never_sent())).status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),
        ("attacker.example:8000", 403),
        ("localhost.attacker.example", 403),
        ("127.0.0.1.attacker.example", 403),
        ("attacker.example@localhost", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
async def test_without_keys_only_our_own_names_are_answered(
    open_http: httpx.AsyncClient, host: str, status: int
) -> None:
    """DNS rebinding: a page's own name is made to point here, and its requests carry that name."""
    for path in ("/", "/v1/models"):
        assert (await open_http.get(path, headers={"Host": host})).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://127.0.0.1:8000", 200),
        ("http://127.0.0.1:3000", 403),
        ("http://localhost:8000", 403),
        ("https://attacker.example", 403),
        ("null", 403),
    ],
)
async def test_without_keys_other_sites_may_not_ask(
    open_http: httpx.AsyncClient, origin: str | None, status: int
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    response = await open_http.post("/tokenize", json={"prompt": "a"}, headers=headers)
    assert response.status_code == status
    assert "access-control-allow-origin" not in response.headers


async def test_a_configured_host_is_one_of_our_names() -> None:
    app = scripted_app(Scripted(), host="127.0.0.7")
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.7") as client,
    ):
        assert (await client.get("/healthz")).status_code == 200


async def test_with_keys_any_name_will_do(http: httpx.AsyncClient) -> None:
    headers = {"Host": "chat.example.com", "Authorization": f"Bearer {KEYS[0]}"}
    assert (await http.get("/v1/models", headers=headers)).status_code == 200
