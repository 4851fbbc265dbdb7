"""Runs the suite that the openai package's own generator wrote for it against our server. By hand:

    PYTHONPATH=src python -m tests.conformance.openai_suite [pytest options]

It fetches the sdist of the installed openai package through your pip configuration, which the tests of this project may
not do. The engine is scripted: what is held to account is the wire format. The variants with aiohttp run where
`pip install openai[aiohttp]` has been done.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.server.scripted_app import Scripted, running, scripted_app

SUITE = ("tests/api_resources/chat", "tests/api_resources/test_completions.py", "tests/api_resources/test_models.py")
API_KEY = "My API Key"  # what the suite sends

# Left out: stored completions (retrieve, update, list and delete of chat completions, and their messages), since
# nothing is stored here and the suite supposes one with the id "completion_id"; and deleting models over HTTP, which
# is for the person at the machine.
SELECTED = "create or path_params or (test_models and (retrieve or list))"


def fetch(folder: Path) -> Path:
    """The unpacked sdist."""
    release = f"openai=={version('openai')}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-binary",
        ":all:",
        "--no-deps",
        "--dest",
        str(folder),
        release,
    ]
    subprocess.run(command, check=True, stdout=sys.stderr)
    (archive,) = folder.glob("openai-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def main(options: list[str]) -> int:
    selected = SELECTED if find_spec("httpx_aiohttp") else f"({SELECTED}) and not aiohttp"
    app = scripted_app(Scripted(), map_unknown_models=True, api_keys=(API_KEY,))
    with TemporaryDirectory() as folder, running(app) as url:
        # Its own options ask for plugins that it does not need for these files.
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-o",
            "addopts=",
            "-p",
            "no:cacheprovider",
            "-q",
            "-k",
            selected,
            *options,
            *SUITE,
        ]
        environment = {**os.environ, "TEST_API_BASE_URL": f"{url}/v1"}
        return subprocess.run(command, cwd=fetch(Path(folder)), env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
