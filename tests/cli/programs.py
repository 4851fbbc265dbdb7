"""Running `fireside` as a person does: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

# `fireside`, with the scripted model of the server's tests in place of the one on disk. Its answers are SAYS.
SCRIPTED = """
import os, sys
from types import SimpleNamespace
from fireside.cli import main, serving, web_server
from fireside.server.registry import ModelRegistry
from tests.server.scripted_app import Scripted, says, scripted_app

model = scripted_app(Scripted(says(os.environ.pop("SAYS", "Hello."), delay=0.01))).state.context.models.default
serving.find_or_fetch = lambda name, settings: model
serving.WorkerClient = SimpleNamespace(for_model=lambda model, settings: model.engine)
web_server.registry_of = lambda model, engine, settings: ModelRegistry([model])
main.main()
"""


def environment(home: Path, **more: str) -> Mapping[str, str]:
    """The caller's, without settings of Fireside's own."""
    kept = {key: value for key, value in os.environ.items() if not key.upper().startswith(("FIRESIDE_", "HF_"))}
    paths = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
    return kept | {"PYTHONPATH": paths, "FIRESIDE_HOME": str(home), "COLUMNS": "200"} | more


def fireside(*arguments: str, home: Path, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """Runs to the end. No terminal anywhere."""
    return subprocess.run(
        [sys.executable, "-m", "fireside.cli.main", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=environment(home, **more),
        cwd=home,
        timeout=60,
        check=False,
    )
