"""`/openapi.json` says what the server does, and nothing that fits it makes the server fail."""

from __future__ import annotations

from datetime import timedelta

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from fireside.server.accounts.tables import Role, User, UserSession
from fireside.server.accounts.tokens import digest
from fireside.server.db.base import now
from fireside.server.db.database import Database
from tests.server.databases import in_thread
from tests.server.scripted_app import Scripted, scripted_app

# An administrator's, so that every route is open; and a key, which goes before the cookie where both are taken.
HEADERS = {"Authorization": "Bearer key", "Cookie": "fireside_session=token", "X-Fireside": "1"}


def open_to_an_administrator() -> FastAPI:
    app = scripted_app(Scripted(), api_keys="key")

    async def add() -> None:
        database = Database(app.state.context.settings.database)
        async with database.session() as session:
            ada = User(email="ada@example.com", name="Ada", password_hash="", role=Role.ADMIN)
            session.add(ada)
            await session.flush()
            entry = UserSession(user_id=ada.id, token_hash=digest("token"), user_agent="", address="")
            entry.expires_at = now() + timedelta(days=1)
            session.add(entry)
        await database.close()

    in_thread(add())
    return app


schema = schemathesis.openapi.from_asgi("/openapi.json", open_to_an_administrator(), headers=HEADERS)


@schema.exclude(path="/api/session", method="DELETE").parametrize()  # signs out, and the rest would be refused
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_whatever_fits_the_schema_is_answered(case: schemathesis.Case) -> None:
    response = case.call(headers=HEADERS)
    assert response.status_code != 401 or (case.method, case.path) == ("POST", "/api/session"), response.text
    case.validate_response(
        response, checks=[not_a_server_error, content_type_conformance, response_schema_conformance], headers=HEADERS
    )
