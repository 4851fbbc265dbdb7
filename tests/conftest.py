"""Which tests `make test-quick` leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

# What starts processes of its own, compiles, trains, or walks through the app: half a second and more for each test.
SLOW = (
    "cli/test_admin.py",
    "cli/test_commands.py",
    "cli/test_serve.py",
    "data/test_prepare.py",
    "e2e",
    "engine/test_supervisor.py",
    "engine/test_worker.py",
    "kernels/test_wheel.py",
    "server/test_openapi.py",
    "test_end_to_end.py",
    "training/test_loop.py",
    "training/test_sharding.py",
    "training/test_train.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = [Path(__file__).parent / path for path in SLOW]
    for item in items:
        on_postgresql = "postgresql" in item.name
        if on_postgresql or any(item.path.is_relative_to(path) for path in slow):
            item.add_marker(pytest.mark.slow)
