"""Nothing that lets somebody in is ever kept as it is, nor logged, nor answered twice."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.server.accounts.people import PASSWORD, browser, code_of, context_of, invitation, person, row_of, sign_in
from tests.server.scripted_app import Scripted, scripted_app


async def test_secrets_are_in_no_log_and_no_row(
    script: Scripted, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A whole life of an account, with the log at its most talkative; then every byte on disk is looked at."""
    caplog.set_level(logging.DEBUG)
    app = scripted_app(script, home=tmp_path, api_keys="key-of-the-settings")
    answers = []
    async with app.router.lifespan_context(app):
        setup = await context_of(app).accounts.new_setup_token()
        assert setup
        ada = browser(app)
        answers.append(await ada.post("/api/setup", json=person(token=setup)))
        invited = await invitation(app)
        answers.append(await browser(app).post("/api/users", json=person("Bob", token=invited)))
        key = (await ada.post("/api/keys", json={"name": "laptop"})).json()["key"]
        id = (await row_of(app, "Bob")).id
        reset = (await ada.post(f"/api/admin/users/{id}/reset")).json()["path"].partition("#")[2]
        answers.append(await browser(app).post("/api/reset", json={"token": reset, "password": "a new pass phrase"}))
        bob = await sign_in(app, "Bob", "a new pass phrase")
        typed = {"email": "sw0rdfish@example.com", "password": "sw0rdfish-typed"}  # as the e-mail address, by mistake
        answers.append(await browser(app).post("/api/session", json=typed))
        answers += [await ada.get(f"/api/{path}") for path in ("me", "session", "sessions", "keys", "admin/users")]
        answers += [await ada.get(f"/api/admin/{path}") for path in ("audit", "invitations", "health")]
        answers.append(await browser(app).post("/api/session", content=b'{"password": "unfinished-secret'))
        answers.append(await ada.get("/v1/models", headers={"Authorization": f"Bearer {key}x"}))
        cookies = [client.cookies["fireside_session_8000"] for client in (ada, bob)]
    secrets = [setup, invited, reset, key, PASSWORD, "a new pass phrase", "sw0rdfish", "unfinished-secret", *cookies]
    secrets.append("key-of-the-settings")
    connection = sqlite3.connect(tmp_path / "fireside.db")
    rows = "\n".join(connection.iterdump())
    connection.close()
    places = {
        "the log": caplog.text,
        "the output": "".join(capfd.readouterr()),
        "the database": rows,
        "its files": (tmp_path / "fireside.db").read_bytes().decode("latin-1"),
        "answers": "".join(answer.text for answer in answers),
    }
    assert "Ada" in places["the database"] and "Ada" in places["its files"] and "Ada" in places["answers"]
    for place, content in places.items():
        for secret in secrets:
            assert secret not in content, f"{secret} is in {place}"


async def test_a_failure_of_ours_shows_nothing(
    script: Scripted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception from the database has its statement's values in its text."""
    app = scripted_app(script)
    async with app.router.lifespan_context(app):
        async with context_of(app).database.session() as session:
            await session.execute(text("DROP TABLE audit_log"))
        token = await context_of(app).accounts.new_setup_token()
        response = await browser(app).post("/api/setup", json=person(token=token))
    assert code_of(response) == (500, "internal_error")
    assert "argon2" not in response.text + caplog.text and PASSWORD not in caplog.text
