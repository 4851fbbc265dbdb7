"""`fireside admin`, and the link that the first start prints: a person's way in from the terminal."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import stat
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import closing
from http.cookiejar import CookieJar
from json import dumps, loads
from pathlib import Path
from typing import Any

import pytest

from fireside.cli import admin
from fireside.errors import FiresideError
from fireside.server.feedback import export
from tests.cli.programs import fireside
from tests.cli.test_serve import served
from tests.server.databases import migrated_sqlite

PASSWORD = "correct horse battery staple"


class Browser:
    """On a real socket, with cookies of its own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def send(self, method: str, path: str, body: object = None) -> Any:
        """The answer's JSON; for an error, its status."""
        data = None if body is None else dumps(body).encode()
        request = urllib.request.Request(self._address + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        request.add_header("X-Fireside", "1")
        try:
            with self._opener.open(request, timeout=30) as response:
                return loads(response.read() or "null")
        except urllib.error.HTTPError as error:
            return error.code


def test_from_the_first_start_to_a_second_person(tmp_path: Path) -> None:
    with served(tmp_path) as (process, address):
        assert process.stdout is not None
        process.stdout.readline()
        line = process.stdout.readline()
        assert line.startswith(f"Make the administrator's account: {address}/setup#"), line
        token = line.strip().partition("#")[2]
        ada = Browser(address)
        assert ada.send("GET", "/v1/models")["data"]  # this machine's alone, until there is somebody
        person = {"name": "Ada", "email": "ada@example.com", "password": PASSWORD}
        assert ada.send("POST", "/api/setup", person | {"token": token})["user"]["role"] == "admin"
        assert ada.send("GET", "/v1/models")["data"]
        stranger = Browser(address)
        assert stranger.send("GET", "/v1/models") == 401

        invited = fireside("admin", "invite", "--role", "guest", "--url", "https://chat.example.com/", home=tmp_path)
        assert invited.returncode == 0, invited.stderr
        match = re.fullmatch(r"https://chat\.example\.com/join#([\w-]{43})\n", invited.stdout)
        assert match
        bob = person | {"name": "Bob", "email": "bob@example.com", "token": match[1]}
        assert stranger.send("POST", "/api/users", bob)["user"]["role"] == "guest"

        reset = fireside("admin", "reset-password", "BOB@example.com", home=tmp_path)
        link = reset.stdout.strip()
        assert link.startswith("http://127.0.0.1:8000/reset#"), reset.stderr
        change = {"token": link.partition("#")[2], "password": "another pass phrase"}
        assert Browser(address).send("POST", "/api/reset", change)["user"]["name"] == "Bob"
        assert stranger.send("GET", "/api/me") == 401

        listed = fireside("admin", "users", home=tmp_path).stdout.splitlines()
        assert [re.split(r"\s{2,}", row)[:3] for row in listed] == [
            ["EMAIL", "NAME", "ROLE"], ["ada@example.com", "Ada", "admin"], ["bob@example.com", "Bob", "guest"],
        ]  # fmt: skip
        again = fireside("admin", "setup-link", home=tmp_path)
        assert again.returncode == 1 and "there is an administrator already" in again.stderr

        copied = Path(fireside("admin", "backup", home=tmp_path).stdout.strip())
        assert copied.parent == tmp_path / "backups"
        connection = sqlite3.connect(copied)
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (2,)
        connection.close()
    with served(tmp_path) as (process, address):
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.stdout.read() == ""  # no link any more


def test_before_anybody_is_there(tmp_path: Path) -> None:
    assert "setup-link" in fireside("admin", "users", home=tmp_path).stdout
    link = fireside("admin", "setup-link", home=tmp_path).stdout
    assert re.fullmatch(r"http://127\.0\.0\.1:8000/setup#[\w-]{43}\n", link)
    unknown = fireside("admin", "reset-password", "eve@example.com", home=tmp_path)
    assert unknown.returncode == 1 and "nobody has an account with 'eve@example.com'" in unknown.stderr
    assert "Traceback" not in unknown.stderr


def test_a_server_that_others_reach_asks_from_the_first_start(tmp_path: Path) -> None:
    """Without a key or an account nobody gets further than the setup, which wants the link."""
    with served(tmp_path, FIRESIDE_HOST="0.0.0.0") as (process, address):
        assert process.stdout is not None
        stranger = Browser(address)
        for path in ("/v1/models", "/version", "/metrics", "/openapi.json", "/api/me"):
            assert stranger.send("GET", path) == 401, path
        assert stranger.send("POST", "/v1/chat/completions", {}) == 401
        assert stranger.send("GET", "/api/session")["needs_setup"]
        process.stdout.readline()
        token = process.stdout.readline().strip().partition("#")[2]
        person = {"name": "Ada", "email": "ada@example.com", "password": PASSWORD}
        assert stranger.send("POST", "/api/setup", person | {"token": token[:-1] + "!"}) == 404
        assert stranger.send("POST", "/api/setup", person | {"token": token})["user"]["name"] == "Ada"


def test_a_database_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "fireside.db").write_text("no database, but longer than the header of one would be " * 5)
    for arguments in (["admin", "users"], ["admin", "backup"]):
        result = fireside(*arguments, home=tmp_path)
        assert (result.returncode, result.stdout) == (1, "")
        assert (
            result.stderr
            == f"fireside: the database {tmp_path / 'fireside.db'} cannot be used: file is not a database\n"
        )


def test_feedback_as_lines_to_train_on(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    assert fireside("admin", "export-feedback", home=tmp_path).stdout == ""  # and makes the tables
    with closing(sqlite3.connect(tmp_path / "fireside.db")) as connection, connection:
        for table, values in {
            "users": ("u", 0, "ada@example.com", "Ada", "x", "admin", None, "", "{}", None),
            "feedback_consents": ("p", 0, "u", True, 0),
            "conversations": (1, "c", 0, 0, "u", None, "", False, None, "{}", None, None, None, False),
        }.items():
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)
        for number, (id, parent, role) in enumerate((("q", None, "user"), ("a", "q", "assistant"))):
            connection.execute(
                "INSERT INTO messages (number, id, parent_id, role, content, created_at, conversation_id,"
                " status, is_blind, is_copied, system, left_out)"
                " VALUES (?, ?, ?, ?, ?, 0, 'c', 'complete', 0, 0, '', 0)",
                (number, id, parent, role, f"of {role}"),
            )
        connection.execute("INSERT INTO feedback VALUES ('f', 0, 0, 'u', 'c', 'rating', 'a', NULL, 'up', '[]', '', 1)")
    written = fireside("admin", "export-feedback", "--format", "kto", "--output", str(path), home=tmp_path)
    assert (written.returncode, written.stdout, stat.S_IMODE(path.stat().st_mode)) == (0, "", 0o600), written.stderr
    row = loads(path.read_text())
    assert row["prompt"] == [{"role": "user", "content": "of user"}] and row["label"] is True
    assert (row["completion"], row["provenance"]["person"]) == ([{"role": "assistant", "content": "of assistant"}], "p")
    again = fireside("admin", "export-feedback", "--output", str(path), home=tmp_path)
    assert again.returncode == 1 and again.stderr == f"fireside: {path} cannot be written: File exists\n"


def test_an_export_that_breaks_off_is_noted_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRESIDE_HOME", str(tmp_path))
    (tmp_path / "fireside.db").write_bytes(migrated_sqlite())
    path = tmp_path / "feedback.jsonl"
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def lines(*_: object, **__: object) -> AsyncIterator[bytes]:
        assert not path.exists()  # until it is whole
        yield b"{}\n"
        raise error

    monkeypatch.setattr(export, "export", lines)
    with pytest.raises(FiresideError, match=re.escape(f"{path} cannot be written: No space left on device")):
        admin.export_feedback(output=path)
    assert not list(tmp_path.glob("feedback*"))
    error = BrokenPipeError(errno.EPIPE, "who reads has enough")  # with which typer ends quietly
    with pytest.raises(BrokenPipeError):
        admin.export_feedback()
    with closing(sqlite3.connect(tmp_path / "fireside.db")) as connection:
        assert connection.execute("SELECT action FROM audit_log").fetchall() == [("feedback_exported",)] * 2
