"""The server speaks text: its process holds neither torch nor numpy nor transformers. (Layers: `make lint`.)"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"
HEAVY = ("torch", "numpy", "transformers")

REPORT = f"""
import json, sys
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""


def heavy_modules_after(program: str) -> list[str]:
    """Which of the heavy modules a fresh interpreter holds once `program` has run."""
    result = subprocess.run(
        [sys.executable, "-c", program + REPORT],
        capture_output=True,
        text=True,
        check=False,
        cwd=SOURCE.parent,
        env={"PYTHONPATH": f"{SOURCE}:{SOURCE.parent}", "PATH": ""},
    )
    assert result.returncode == 0, result.stderr
    heavy: list[str] = json.loads(result.stdout.splitlines()[-1])
    return heavy


def test_the_check_can_fail() -> None:
    assert heavy_modules_after("import numpy") == ["numpy"]


SERVES = """
import asyncio, httpx2
from tests.server.scripted_app import MODEL, Scripted, scripted_app

app = scripted_app(Scripted())

async def talk() -> None:
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost")
    async with app.router.lifespan_context(app), http:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
        answer = await http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text

asyncio.run(talk())
"""


@pytest.mark.parametrize(
    "program",
    [
        "import fireside.server.app",
        SERVES,
        "import fireside.engine.client, fireside.engine.messages, fireside.engine.supervisor",
        "import fireside.models.local, fireside.models.catalog, fireside.models.config",
        "import fireside.cli.main, fireside.cli.serving, fireside.cli.chatting",
    ],
    ids=["the app", "an app that answers", "the door to the engine", "models on disk", "the command line"],
)
def test_no_torch_in_the_server_process(program: str) -> None:
    assert heavy_modules_after(program) == []


def test_help_imports_no_verb() -> None:
    """`fireside --help` and tab completion wait for these."""
    program = "import sys, fireside.cli.main\nassert 'fireside.settings' not in sys.modules\n"
    program += "assert 'uvicorn' not in sys.modules and 'prompt_toolkit' not in sys.modules\n"
    assert heavy_modules_after(program) == []
