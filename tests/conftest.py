"""Which tests `make test-quick` leaves out, and names by which each can be told from the others."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from schemathesis.pytest.plugin import SchemathesisFunction

# What starts processes of its own, compiles, trains, walks through the app or tries very many things.
SLOW = (
    "cli/test_admin.py",
    "cli/test_commands.py",
    "cli/test_serve.py",
    "data/test_prepare.py",
    "e2e",
    "engine/speculation/test_draft_model.py",
    "engine/test_native_runner.py",
    "engine/test_saved_prefixes.py",
    "engine/test_supervisor.py",
    "engine/test_worker.py",
    "kernels/test_threads.py",
    "kernels/test_wheel.py",
    "models/test_download.py",
    "models/test_quantized_layers.py",
    "server/accounts/test_watch.py",
    "server/chat/test_crash.py",
    "server/chat/test_journal.py",
    "server/chat/test_runs.py",
    "server/db",
    "server/feedback",
    "server/moving",
    "server/serving",
    "server/sharing",
    "server/test_bad_input.py",
    "server/test_openai_client.py",
    "server/test_openapi.py",
    "server/test_page.py",
    "server/test_slow_strangers.py",
    "server/test_streaming.py",
    "test_architecture.py",
    "test_end_to_end.py",
    "training/test_loop.py",
    "training/test_sharding.py",
    "training/test_train.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, SchemathesisFunction) and item.operation_label is not None:  # its ids leave out the route
            item._id = dataclasses.replace(item.id, params=item.operation_label)
    # With several processes, of tests with one name one alone is run.
    if twice := [name for name, times in Counter(item.nodeid for item in items).items() if times > 1]:
        raise pytest.UsageError(f"several tests have the same name: {', '.join(twice)}")
    slow = [Path(__file__).parent / path for path in SLOW]
    for item in items:
        on_postgresql = "postgresql" in item.name
        if on_postgresql or any(item.path.is_relative_to(path) for path in slow):
            item.add_marker(pytest.mark.slow)
