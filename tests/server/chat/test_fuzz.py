"""Nothing that fits `/openapi.json` makes the app's routes fail, for somebody who is signed in."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from fireside.server.db.database import Database
from tests.server.chat.people import headers, sign_up
from tests.server.databases import in_thread, migrated_sqlite
from tests.server.scripted_app import Scripted, scripted_app

TOKEN = "token of ada"


def _app() -> Any:
    home = Path(mkdtemp(prefix="fireside-test-"))
    url = f"sqlite:///{home / 'fireside.db'}"
    (home / "fireside.db").write_bytes(migrated_sqlite())

    async def prepare() -> None:
        database = Database(url)
        await sign_up(database, "ada")
        await database.close()

    in_thread(prepare())
    return scripted_app(Scripted(), home=home, api_keys="key")


schema = schemathesis.openapi.from_asgi("/openapi.json", _app(), headers={"Authorization": "Bearer key"}).include(
    path_regex="^/api/(conversations|messages|runs|projects|prompts|temporary|models)"
)


@schema.parametrize()
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_whatever_fits_the_schema_is_answered(case: schemathesis.Case) -> None:
    case.call_and_validate(
        headers=headers(TOKEN), checks=[not_a_server_error, content_type_conformance, response_schema_conformance]
    )
