"""`/openapi.json` says what the server does, and nothing that fits it makes the server fail."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from tests.server.scripted_app import Scripted, scripted_app

HEADERS = {"Authorization": "Bearer key"}

schema = schemathesis.openapi.from_asgi("/openapi.json", scripted_app(Scripted(), api_keys="key"), headers=HEADERS)


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_whatever_fits_the_schema_is_answered(case: schemathesis.Case) -> None:
    case.call_and_validate(
        headers=HEADERS, checks=[not_a_server_error, content_type_conformance, response_schema_conformance]
    )
