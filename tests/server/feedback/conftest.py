from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI
from sqlalchemy import update

from fireside.models.local import GenerationDefaults
from fireside.server.accounts.tables import Role, User
from tests.server.chat.people import Person, person
from tests.server.scripted_app import IM_END, Scripted, says, scripted_app


class Giver(Person):
    """Somebody who says what they think."""

    async def put(self, path: str, body: dict[str, Any], status: int = 200) -> Any:
        answer = await self.http.put(f"/api/{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def rate(self, answer: Any, verdict: str, **more: Any) -> Any:
        return await self.put(f"messages/{answer['id']}/rating", {"verdict": verdict, **more})

    async def consent(self, is_given: bool = True, including_earlier: bool = True) -> Any:
        return await self.put("feedback/consent", {"is_given": is_given, "including_earlier": including_earlier})

    async def again(self, answer: Any) -> Any:
        """Another answer, once it is written."""
        started = await self.post(f"messages/{answer['id']}/regenerate")
        await self.events(started["run"]["id"])
        return started["answer"]

    async def compare(self, answer: Any, *models: str) -> Any:
        """Two answers, once they are written."""
        begun = await self.post(f"messages/{answer['id']}/comparison", {"models": list(models)})
        for side in ("left", "right"):
            await self.events(begun[side]["run_id"])
        return begun

    async def export(self, form: str = "sft", **query: Any) -> list[dict[str, Any]]:
        """Of an administrator's."""
        answer = await self.http.get("/api/admin/feedback/export", params={"format": form, **query})
        assert answer.status_code == 200, answer.text
        return [msgspec.json.decode(line) for line in answer.text.splitlines()]


@pytest.fixture
def other() -> Scripted:
    """A second model, called "other"."""
    return Scripted(answer=says("From the other one."))


@pytest.fixture
def app(script: Scripted, other: Scripted, migrated_database: str, tmp_path: Path) -> FastAPI:
    """Not started, on each kind of database in turn."""
    app = scripted_app(script, others={"other": other}, home=tmp_path, database_url=migrated_database)
    app.state.context.models.get("other").defaults = GenerationDefaults((IM_END,), temperature=0.123)
    return app


@pytest.fixture
async def ada(app: FastAPI) -> AsyncIterator[Giver]:
    """An administrator."""
    async with app.router.lifespan_context(app), person(app, "ada") as ada:
        async with app.state.context.database.session() as session:
            await session.execute(update(User).where(User.name == "ada").values(role=Role.ADMIN))
        yield Giver(ada.http)


@pytest.fixture
async def bob(app: FastAPI, ada: Giver) -> AsyncIterator[Giver]:
    async with person(app, "bob", instructions="Be brief.") as bob:
        yield Giver(bob.http)
