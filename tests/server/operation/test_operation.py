"""Health, settings and backups, as administrators see them."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from fireside import __version__
from fireside.server.db import backups
from fireside.server.db.backups import KEPT_BACKUPS
from fireside.settings import Settings, load_settings
from tests.server.accounts.people import code_of, context_of, join, set_up, sign_in
from tests.server.scripted_app import Scripted, scripted_app


async def test_health(ada: httpx.AsyncClient, app: FastAPI, script: Scripted) -> None:
    health = (await ada.get("/api/admin/health")).json()
    assert health["version"] == __version__
    (tiny,) = health["models"]
    assert (tiny["name"], tiny["state"], tiny["reason"], tiny["is_default"]) == ("tiny", "ready", None, True)
    assert (tiny["blocks_total"], tiny["generated_tokens"], tiny["running"]) == (128, 0, 0)
    assert health["database_bytes"] > 10_000 and health["memory_bytes"] > 10_000_000
    assert health["disk_free_bytes"] > 0 and health["free_memory_bytes"] > 0
    assert "password" not in health["database"]
    await ada.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}]})
    script.client.crash(reason="it died")
    again = (await ada.get("/api/admin/health")).json()
    assert (again["models"][0]["state"], again["models"][0]["reason"]) == ("restarting", "it died")
    assert again["models"][0]["generated_tokens"] == len("Hello there.") + 1
    assert again["uptime_seconds"] > health["uptime_seconds"]


async def test_settings_say_where_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "fireside.toml").write_text('log_level = "debug"\nsession_days = 3\n')
    (tmp_path / "fireside.toml").write_text("session_days = 4\nmax_running = 5\n")
    monkeypatch.setenv("FIRESIDE_HOME", str(home))
    monkeypatch.setenv("FIRESIDE_MAX_RUNNING", "6")
    monkeypatch.setenv("FIRESIDE_API_KEYS", "one-secret,another-secret")
    settings = load_settings(tmp_path, port=8123)
    found = {name: settings.source_of(name) for name in Settings.model_fields}
    assert {name: source for name, source in found.items() if source != "default"} == {
        "log_level": str(home / "fireside.toml"),
        "session_days": str(tmp_path / "fireside.toml"),
        "max_running": "environment",
        "home": "environment",
        "api_keys": "environment",
        "port": "option",
    }
    app = scripted_app(Scripted(), **{name: getattr(settings, name) for name in ("api_keys", "session_days")})
    async with app.router.lifespan_context(app):
        context_of(app).settings._sources["session_days"] = "environment"
        ada = await set_up(app)
        response = await ada.get("/api/admin/settings")
        items = {item["name"]: item for item in response.json()["items"]}
    assert items.keys() == Settings.model_fields.keys()
    assert "secret" not in response.text.replace('"is_secret"', "")
    assert (items["api_keys"]["value"], items["api_keys"]["is_secret"]) == ("2", True)
    assert (items["session_days"]["value"], items["session_days"]["source"]) == ("4", "environment")
    assert (items["max_context"]["value"], items["max_context"]["source"]) == (None, "default")


async def test_a_database_s_password_is_not_told(ada: httpx.AsyncClient, app: FastAPI) -> None:
    url = context_of(app).database.url
    context_of(app).database.url = url.set(password="hunter2") if not context_of(app).database.is_sqlite else url
    text = (await ada.get("/api/admin/settings")).text + (await ada.get("/api/admin/backups")).text
    context_of(app).database.url = url
    assert "hunter2" not in text


async def test_backups(ada: httpx.AsyncClient, app: FastAPI, tmp_path: Path) -> None:
    response = await ada.post("/api/admin/backups")
    if not context_of(app).database.is_sqlite:
        assert code_of(response) == (409, "no_backup") and "pg_dump" in response.text
        listed = (await ada.get("/api/admin/backups")).json()
        assert (listed["items"], listed["is_possible"], listed["folder"]) == ([], False, None)
        return
    made = response.json()
    folder = tmp_path / "backups"
    (folder / "other.db").write_bytes(b"not ours")
    listed = (await ada.get("/api/admin/backups")).json()
    assert (listed["items"], listed["is_possible"], listed["kept"]) == ([made], True, KEPT_BACKUPS)
    assert (listed["folder"], listed["database"]) == (str(folder), str(tmp_path / "fireside.db"))
    path = f"/api/admin/backups/{made['name']}"
    download = await ada.get(path)
    assert download.content == (folder / made["name"]).read_bytes() and len(download.content) == made["size_bytes"]
    assert download.headers["content-disposition"] == f'attachment; filename="{made["name"]}"'
    assert download.headers["cache-control"] == "no-store"
    for name in ("other.db", "..%2ffireside.db", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "fireside.db", "x" * 300):
        for method in ("GET", "DELETE"):
            refused = await ada.request(method, f"/api/admin/backups/{name}")
            assert refused.status_code in (400, 404), name
    assert (tmp_path / "fireside.db").exists() and (folder / "other.db").exists()
    assert (await ada.delete(path)).status_code == 204
    assert (await ada.get(path)).status_code == (await ada.delete(path)).status_code == 404
    assert not (folder / made["name"]).exists()
    log = (await ada.get("/api/admin/audit")).json()["items"][:3]
    assert [(entry["action"], entry["detail"]["file"]) for entry in log] == [
        ("backup_deleted", made["name"]),
        ("backup_downloaded", made["name"]),
        ("backup", made["name"]),
    ]


async def test_a_backup_that_cannot_be_made_says_why(
    ada: httpx.AsyncClient, app: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not context_of(app).database.is_sqlite:
        return
    (tmp_path / "backups").write_text("in the way")
    response = await ada.post("/api/admin/backups")
    assert code_of(response) == (409, "no_backup") and f"no backup can be made in {tmp_path}" in response.text
    (tmp_path / "backups").unlink()
    monkeypatch.setattr(context_of(app).database.__class__, "_path", tmp_path / "backups")  # which is no database
    (tmp_path / "backups").write_text("no database at all, but longer than its header " * 10)
    (tmp_path / "own").mkdir()
    monkeypatch.setattr(backups, "folder_of", lambda _: tmp_path / "own")
    response = await ada.post("/api/admin/backups")
    assert code_of(response) == (409, "no_backup") and "not a database" in response.text
    assert list((tmp_path / "own").iterdir()) == []


async def test_a_backup_is_restored_as_the_page_says(tmp_path: Path) -> None:
    app = scripted_app(Scripted(), home=tmp_path)
    async with app.router.lifespan_context(app):
        ada = await set_up(app)
        await join(app, "Bob")
        name = (await ada.post("/api/admin/backups")).json()["name"]
        await join(app, "Eve")
    database = tmp_path / "fireside.db"
    with sqlite3.connect(database) as after:
        assert [row[0] for row in after.execute("SELECT name FROM users ORDER BY name")] == ["Ada", "Bob", "Eve"]
    after.close()
    for end in ("", "-wal", "-shm"):
        if (old := tmp_path / f"fireside.db{end}").exists():
            old.rename(tmp_path / f"fireside.db.before{end}")
    shutil.copy(tmp_path / "backups" / name, database)
    app = scripted_app(Scripted(), home=tmp_path)
    async with app.router.lifespan_context(app):
        ada = await sign_in(app, "Ada")
        people = (await ada.get("/api/admin/users")).json()["items"]
        assert [person["name"] for person in people] == ["Bob", "Ada"]
