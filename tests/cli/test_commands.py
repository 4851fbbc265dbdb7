"""The verbs that need no engine, as processes: what they print, where, and how they end."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

import fireside as package
from tests.cli.programs import fireside
from tests.models.hub_server import FakeHub, serve_hub
from tests.models.test_local import write_folder, write_gguf


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_version(home: Path) -> None:
    versions = json.loads(fireside("version", "--json", home=home).stdout)
    assert versions["fireside"] == package.__version__
    assert set(versions) == {"fireside", "python", "torch"}


def test_models_lists_what_is_there_and_what_is_wrong(home: Path) -> None:
    assert "fireside pull" in fireside("models", home=home).stdout
    gguf = write_gguf(home / "models" / "tiny" / "weights.gguf")
    write_folder(home / "models" / "folder")
    (home / "models" / "broken").mkdir()

    table = fireside("models", home=home, FIRESIDE_MODEL="tiny")
    header, folder_row, tiny_row = table.stdout.splitlines()
    assert header.split() == ["NAME", "SIZE", "TYPE", "CONTEXT", "LICENCE", "PATH"]
    assert tiny_row.split() == ["tiny", "(default)", "1", "kB", "Q4_1", "256", "apache-2.0", str(gguf)]
    assert folder_row.endswith(f"BF16      128  not stated  {home / 'models' / 'folder'}")
    assert table.stderr.startswith("broken cannot be used: ") and table.returncode == 0

    by_name = {entry["name"]: entry for entry in json.loads(fireside("models", "--json", home=home).stdout)}
    assert by_name["tiny"]["size_bytes"] == gguf.stat().st_size
    assert (by_name["tiny"]["context_length"], by_name["tiny"]["license"]) == (256, "apache-2.0")
    assert by_name["folder"]["type"] == "BF16" and by_name["folder"]["license"] is None
    assert "holds no model" in by_name["broken"]["error"]


def test_pull_from_the_hub_that_hf_endpoint_names(home: Path, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", tokenizer={"version": "1.0"})
    hub = FakeHub({"owner/tiny": {path.name: path.read_bytes() for path in source.iterdir()}})
    with serve_hub(hub) as address:
        result = fireside("pull", "hf:owner/tiny", home=home, HF_ENDPOINT=address)
    assert result.returncode == 0, result.stderr
    description, path = result.stdout.splitlines()
    assert description == "tiny: BF16, 1 kB, 128 tokens of context, licence apache-2.0"
    assert path == str(home / "models" / "tiny")
    assert result.stderr == "fetching tiny from hf:owner/tiny\n"


def test_failures_are_one_sentence_and_a_status(home: Path, tmp_path: Path) -> None:
    cases = [
        (("pull", "smolm2-135m"), {}, 1, "did you mean smollm2-135m"),
        (("pull", "hf:owner/tiny"), {"HF_ENDPOINT": "http://127.0.0.1:9"}, 1, "the hub cannot be reached"),
        (("models",), {"FIRESIDE_HOST_NAME": "x"}, 2, "FIRESIDE_HOST_NAME is not a setting"),
        (
            ("serve",),
            {"FIRESIDE_DATABASE_URL": "mysql://me@host/x"},
            1,
            "database_url must begin with sqlite or postgresql",
        ),
        (("serve", "--port", "70000"), {}, 2, "option port should be less than or equal to 65535"),
        (("serve", "--host", "no.such.host.invalid"), {"FIRESIDE_API_KEYS": "k"}, 1, "not an address of this machine"),
        (("serve", "--model", "nowhere"), {"FIRESIDE_PORT": "0"}, 1, "there is no model 'nowhere'"),
        (("chat",), {}, 1, "nothing came in"),
    ]
    for arguments, settings, status, message in cases:
        result = fireside(*arguments, home=home, **settings)
        *_, last = result.stderr.splitlines()
        assert last.startswith("fireside: ") and message in last, result.stderr
        assert "Traceback" not in result.stderr
        assert (result.returncode, result.stdout) == (status, "")


def test_taken_port_is_refused_before_the_model_is_looked_for(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = fireside("serve", "--port", str(port), "--model", "nowhere", home=home)
    assert result.returncode == 1
    assert result.stderr.startswith(f"fireside: port {port} of 127.0.0.1 is taken")
