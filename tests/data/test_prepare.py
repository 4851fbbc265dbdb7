"""`prepare`: what goes in comes out, counted, the same every time, whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fireside.cli.progress import time_left
from fireside.data.cleaning.deduplication import Seen
from fireside.data.config import DataConfig
from fireside.data.documents import Conversation, DataError
from fireside.data.manifest import FileRecord, Manifest, file_record, read_manifest
from fireside.data.parallel import _tasks
from fireside.data.prepare import Progress, prepare
from fireside.data.shards import Flag, open_dataset
from fireside.data.tokenizing import document_borders, token_dtype
from fireside.errors import FiresideError
from fireside.tokenizers.chat_template import ChatTemplate
from tests.data.files import chat, prose, write_jsonl, write_parquet
from tests.tokenizers.small import small_folder, small_parts

LENIENT = {"quality": None, "repetition": None, "pii": False}


def config(folder: Path, **changes: Any) -> DataConfig:
    """Two sources: 200 documents of which a tenth repeats, and 40 conversations."""
    texts = [prose(seed) for seed in range(180)]
    write_jsonl(folder / "texts.jsonl", [{"text": text} for text in [*texts, *texts[:20]]])
    talks = [{"messages": chat(f"Question {n}?", prose(n, 10), "And?", prose(n + 500, 10))} for n in range(40)]
    write_jsonl(folder / "chats.jsonl", [*talks, {"messages": chat("alone")}])
    settings: dict[str, Any] = {
        "sources": [
            {"name": "texts", "path": str(folder / "texts.jsonl"), "licence": "CC0-1.0", "note": "made up"},
            {"name": "chats", "path": str(folder / "chats.jsonl")},
        ],
        "validation_fraction": 0.1,
        "processes": 1,
    }
    return DataConfig.model_validate(settings | changes)


def make(wanted: DataConfig, folder: Path, **more: Any) -> Manifest:
    tokenizer, template = small_parts()
    return prepare(wanted, tokenizer, folder, template=template, **more)


def test_documents_come_back_whole(tmp_path: Path) -> None:
    tokenizer, _ = small_parts()
    manifest = make(config(tmp_path), tmp_path / "set")
    dataset = open_dataset(tmp_path / "set")
    assert dataset.manifest == manifest
    dataset.verify()
    texts, chats = manifest.sources
    assert (texts.read, texts.dropped, texts.licence) == (200, {"exact duplicate": 20}, "CC0-1.0")
    assert (chats.read, chats.malformed) == (40, {"no assistant": 1})
    assert chats.examples[0].startswith(f"{tmp_path}/chats.jsonl:41: ")
    found = []
    for split in ("train", "validation"):
        for source in dataset.sources(split):
            record = getattr({s.name: s for s in manifest.sources}[source.name], split)
            assert record.documents == len(source.lengths)
            assert record.tokens == source.lengths.sum()
            if source.name == "texts":
                ids = [source.ids(n) for n in range(len(source.lengths))]
                assert all(i[0] == i[-1] == document_borders(tokenizer)[1] for i in ids)
                decoded = [tokenizer.decode(i.tolist()) for i in ids]
                assert record.bytes == sum(len(text.encode()) for text in decoded)
                found += decoded
    assert sorted(found) == sorted({prose(seed) for seed in range(180)})
    assert 5 <= texts.validation.documents <= 35


def test_conversations_keep_their_mask(tmp_path: Path) -> None:
    tokenizer, _ = small_parts()
    make(config(tmp_path), tmp_path / "set")
    chats = open_dataset(tmp_path / "set").sources("train")[1]
    for number in range(len(chats.lengths)):
        ids, flags = chats.ids(number), chats.flags(number)
        answers = tokenizer.decode(ids[flags & Flag.TARGET > 0].tolist(), skip_special_tokens=False)
        assert answers.count("<|im_end|>") == 2
        assert "Question" not in answers
        assert np.flatnonzero(flags & Flag.TURN_START).size == 1
        assert np.flatnonzero(flags & Flag.MESSAGE_START).size == 3


def test_the_result_depends_on_nothing_but_the_inputs(tmp_path: Path) -> None:
    one = make(config(tmp_path, shard_tokens=2000), tmp_path / "one")
    two = make(config(tmp_path, shard_tokens=2000, processes=2), tmp_path / "two")
    assert one.to_json() == two.to_json()
    assert one.digest == two.digest == read_manifest(tmp_path / "two").digest
    assert len([shard for shard in one.shards if shard.source == "texts"]) > 5
    files = [sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]
    assert not any("evaluation" in name or name.startswith(".") for name in files[0])


def test_a_document_keeps_its_split_whatever_comes_beside(tmp_path: Path) -> None:
    def held_out(dataset: Path) -> set[str]:
        tokenizer, _ = small_parts()
        (source, *_) = open_dataset(dataset).sources("validation")
        return {tokenizer.decode(source.ids(n).tolist()) for n in range(len(source.lengths))}

    wanted = config(tmp_path)
    make(wanted, tmp_path / "all")
    rows = (tmp_path / "texts.jsonl").read_text().splitlines()
    (tmp_path / "texts.jsonl").write_text("\n".join(reversed(rows[:90])))
    make(wanted, tmp_path / "half")
    kept = {json.loads(row)["text"] for row in rows[:90]}
    assert held_out(tmp_path / "half") == held_out(tmp_path / "all") & kept
    make(wanted.model_copy(update={"validation_name": "validation-2"}), tmp_path / "other")
    assert held_out(tmp_path / "other") != held_out(tmp_path / "half")


def test_sources_for_one_split(tmp_path: Path) -> None:
    sources = config(tmp_path).model_dump()["sources"]
    sources[0]["use"], sources[1]["use"] = "validation", "train"
    manifest = make(config(tmp_path, sources=sources), tmp_path / "set")
    texts, chats = manifest.sources
    assert (texts.train.documents, texts.validation.documents) == (0, 180)
    assert (chats.train.documents, chats.validation.documents) == (40, 0)


def test_evaluation_files_are_kept_out(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "eval.jsonl", [{"question": prose(5)[:400]}])
    cleaning = {**LENIENT, "decontaminate": [str(tmp_path / "eval.jsonl")]}
    manifest = make(config(tmp_path, cleaning=cleaning), tmp_path / "set")
    assert manifest.sources[0].dropped["shares text with an evaluation"] == 2


def test_conversations_are_decontaminated(tmp_path: Path) -> None:
    """Also where the evaluation file has its letters decomposed, and line ends of Windows."""
    said = prose(999, 60).replace("e", "é")
    write_jsonl(tmp_path / "eval.jsonl", [{"question": unicodedata.normalize("NFD", said).replace(" ", "\r\n")}])
    sources = [{"name": "chats", "path": str(tmp_path / "more.jsonl")}]
    cleaning = {**LENIENT, "decontaminate": [str(tmp_path / "eval.jsonl")]}
    wanted = config(tmp_path, sources=sources, cleaning=cleaning, validation_fraction=0)
    talks = [chat("Why?", said), chat("Why?", prose(1)), chat(said, prose(2))]
    write_jsonl(tmp_path / "more.jsonl", [{"messages": talk} for talk in talks])
    manifest = make(wanted, tmp_path / "set")
    assert manifest.sources[0].dropped == {"shares text with an evaluation": 2}


def test_a_dataset_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    wanted = config(tmp_path)
    manifest = make(wanted, tmp_path / "set")
    before = (tmp_path / "set" / "manifest.json").stat().st_mtime_ns
    assert make(wanted.model_copy(update={"processes": 2}), tmp_path / "set") == manifest
    assert (tmp_path / "set" / "manifest.json").stat().st_mtime_ns == before


def test_a_dataset_of_something_else_is_refused(tmp_path: Path) -> None:
    wanted = config(tmp_path)
    make(wanted, tmp_path / "set")
    with pytest.raises(DataError, match=r"other settings \(validation_fraction was 0.1 and is 0.2\)"):
        make(wanted.model_copy(update={"validation_fraction": 0.2}), tmp_path / "set")
    with (tmp_path / "texts.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(DataError, match=r"other data \(.*texts\.jsonl has changed\)"):
        make(wanted, tmp_path / "set")
    (tmp_path / "file").mkdir()
    with pytest.raises(DataError, match="not a prepared dataset"):
        make(wanted, tmp_path / "file")


def test_asking_again_reads_no_file_that_has_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def record(path: Path) -> FileRecord:
        hashed.append(path.name)
        return file_record(path)

    evaluation = write_jsonl(tmp_path / "eval.jsonl", [{"question": prose(500)}])
    wanted = config(tmp_path, cleaning={**LENIENT, "decontaminate": [str(evaluation)]})
    manifest = make(wanted, tmp_path / "set")
    for module in ("inputs", "shards"):
        monkeypatch.setattr(f"fireside.data.{module}.file_record", record)
    assert make(wanted, tmp_path / "set") == manifest
    assert hashed == []
    (tmp_path / "chats.jsonl").touch()  # another time, the same content
    assert make(wanted, tmp_path / "set") == manifest
    assert hashed == ["chats.jsonl"]
    assert make(wanted, tmp_path / "set") == manifest
    assert hashed == ["chats.jsonl"]
    times = (tmp_path / "texts.jsonl").stat()
    (tmp_path / "texts.jsonl").write_bytes((tmp_path / "texts.jsonl").read_bytes().replace(b"river", b"stone", 1))
    os.utime(tmp_path / "texts.jsonl", ns=(times.st_atime_ns, times.st_mtime_ns))  # the same size and time
    with pytest.raises(DataError, match=r"texts\.jsonl has changed"):
        make(wanted, tmp_path / "set")


def test_files_that_come_and_go_are_named(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name in ("a", "b"):
        write_jsonl(tmp_path / "texts" / f"{name}.jsonl", [{"text": prose(n + ord(name))} for n in range(5)])
    sources = [{"name": "texts", "path": str(tmp_path / "texts")}]
    wanted = config(tmp_path, sources=sources, validation_fraction=0)
    make(wanted, tmp_path / "set")
    (tmp_path / "texts" / "b.jsonl").rename(tmp_path / "b.jsonl")
    with pytest.raises(DataError, match=r"b\.jsonl is gone"):
        make(wanted, tmp_path / "set")
    (tmp_path / "b.jsonl").rename(tmp_path / "texts" / "b.jsonl")
    write_jsonl(tmp_path / "texts" / "c.jsonl", [{"text": prose(99)}])
    with pytest.raises(DataError, match=r"c\.jsonl is new"):
        make(wanted, tmp_path / "set")


def test_a_dataset_of_the_hub_stays_the_commit_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, subset: str | None, *, split: str, revision: str, streaming: bool) -> Any:
        asked.append(revision)
        return iter([{"text": prose(n)} for n in range(20)])

    class Hub:
        def dataset_info(self, name: str, *, revision: str | None) -> Any:
            asked.append((name, revision))
            return SimpleNamespace(sha="c" * 40)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    sources = [{"name": "hub", "path": "hf:someone/texts", "revision": "main"}]
    wanted = config(tmp_path, sources=sources, validation_fraction=0)
    manifest = make(wanted, tmp_path / "set")
    assert manifest.sources[0].revision == "c" * 40
    assert asked == [("someone/texts", "main"), "c" * 40, "c" * 40]  # once for the kind, once for the rows
    asked.clear()
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.delattr("huggingface_hub.HfApi")
    assert make(wanted, tmp_path / "set") == manifest
    with pytest.raises(DataError, match=r"sources\.0\.revision was 'main' and is 'v2'"):
        make(config(tmp_path, sources=[sources[0] | {"revision": "v2"}], validation_fraction=0), tmp_path / "set")


def test_how_far_it_is(tmp_path: Path) -> None:
    told: list[Progress] = []
    make(config(tmp_path), tmp_path / "set", on_progress=told.append)
    shares = [progress.share for progress in told]
    assert None not in shares and shares == sorted(shares, key=lambda share: share or 0)
    assert 0 < (shares[0] or 0) < 1 == shares[-1]
    assert str(told[-1]).endswith("tokens, 100% of all")
    told.clear()
    sources = [{"name": "texts", "path": str(tmp_path / "texts.jsonl"), "limit": 5}]
    make(config(tmp_path, sources=sources), tmp_path / "few", on_progress=told.append)
    assert told[-1].share is None
    assert (time_left(0.25, 60), time_left(None, 60)) == (", 25%, 0:03:00 left", "")


def test_nothing_left_to_train_on_says_why(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "short.jsonl", [{"text": "Hello."}, {"text": "Bye."}, {}])
    sources = [{"name": "short", "path": str(tmp_path / "short.jsonl")}]
    with pytest.raises(DataError, match=r"2 documents \(2 too few words, 1 no text\)"):
        make(config(tmp_path, sources=sources), tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chats.jsonl", "short.jsonl", "texts.jsonl"]


def test_conversations_need_a_template(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="source chats holds conversations"):
        prepare(config(tmp_path), small_parts()[0], tmp_path / "set")


def test_a_template_without_system_messages_is_told_them_by_the_user(tmp_path: Path) -> None:
    talks = [[{"role": "system", "content": "Be brief."}, *chat("Why?", prose(n))] for n in range(5)]
    write_jsonl(tmp_path / "talks.jsonl", [{"messages": talk} for talk in talks])
    wanted = config(tmp_path, sources=[{"name": "talks", "path": str(tmp_path / "talks.jsonl")}])
    tokenizer, own = small_parts()
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + own.source
    template = ChatTemplate(refusing, bos_token=None, eos_token="<|im_end|>")
    (source,) = prepare(wanted, tokenizer, tmp_path / "set", template=template).sources
    assert (source.train.documents + source.validation.documents, source.dropped) == (5, {})
    assert source.changed["system message put before the user's, as the template takes none"] == 5
    (chats,) = open_dataset(tmp_path / "set").sources("train")
    assert "user\nBe brief.\n\nWhy?" in tokenizer.decode(chats.ids(0).tolist())


def test_arguments_that_are_not_json_are_counted(tmp_path: Path) -> None:
    wanted = config(tmp_path)
    arguments = {"when": datetime(2026, 1, 1, tzinfo=UTC)}
    calls = [{"type": "function", "function": {"name": "wake", "arguments": arguments}}]
    write_parquet(
        tmp_path / "calls.parquet", [{"messages": [{"role": "assistant", "content": "", "tool_calls": calls}]}]
    )
    deep: Any = {}
    for _ in range(450):
        deep = {"a": deep}
    calls = [{"type": "function", "function": {"name": "wake", "arguments": deep}}]
    write_jsonl(tmp_path / "deep.jsonl", [{"messages": [{"role": "assistant", "content": "", "tool_calls": calls}]}])
    sources = [*wanted.model_dump()["sources"]]
    sources += [{"name": name, "path": str(tmp_path / name)} for name in ("calls.parquet", "deep.jsonl")]
    for source in sources[2:]:
        source["name"] = source["name"].partition(".")[0]
    manifest = make(config(tmp_path, sources=sources), tmp_path / "set")
    assert manifest.sources[2].dropped == {"refused by the chat template": 1}
    assert manifest.sources[3].read == 1


def test_damage_is_found(tmp_path: Path) -> None:
    make(config(tmp_path), tmp_path / "set")
    (shard, *_) = (tmp_path / "set").glob("train-texts-*.tokens.npy")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match="is not what was prepared"):
        open_dataset(tmp_path / "set").verify()
    shard.write_bytes(content[:-10])
    with pytest.raises(DataError, match=r"tokens\.npy is missing or damaged"):
        open_dataset(tmp_path / "set").sources("train")
    (tmp_path / "set" / "manifest.json").write_text('{"version": 9}')
    with pytest.raises(DataError, match="another version"):
        open_dataset(tmp_path / "set")


def test_a_dataset_that_was_overwritten_is_not_accepted(tmp_path: Path) -> None:
    wanted = config(tmp_path)
    make(wanted, tmp_path / "set")
    (shard, *_) = (tmp_path / "set").glob("train-texts-*.tokens.npy")
    np.save(shard, np.zeros_like(np.load(shard)))
    with pytest.raises(DataError, match="is not what was prepared"):
        make(wanted, tmp_path / "set")
    shard.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        make(wanted, tmp_path / "set")


def test_changed_evaluation_files_are_noticed(tmp_path: Path) -> None:
    evaluation = write_jsonl(tmp_path / "eval.jsonl", [{"question": prose(5)[:400]}])
    wanted = config(tmp_path, cleaning={**LENIENT, "decontaminate": [str(evaluation)]})
    make(wanted, tmp_path / "set")
    write_jsonl(evaluation, [{"question": prose(6)[:400]}])
    with pytest.raises(DataError, match=r"other data \(.*eval\.jsonl has changed\)"):
        make(wanted, tmp_path / "set")


def test_two_preparations_of_one_folder(tmp_path: Path) -> None:
    def again(progress: Progress) -> None:
        if progress.documents == 50:
            with pytest.raises(DataError, match="another preparation is writing"):
                make(config(tmp_path), tmp_path / "set")

    make(config(tmp_path), tmp_path / "set", on_progress=again)
    open_dataset(tmp_path / "set").verify()
    assert not list(tmp_path.glob(".*"))


def test_what_deduplication_forgets_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make(config(tmp_path), tmp_path / "set").forgotten == 0
    monkeypatch.setattr(Seen, "__init__", lambda self, sets, size, make=Seen.__init__: make(self, sets, 8 * 8 * sets))
    assert make(config(tmp_path), tmp_path / "small").forgotten > 100


def test_tasks_of_long_conversations_are_small() -> None:
    talk = Conversation(messages=chat("Why?", "x" * 400_000), tools=[], id="1", source="s")
    assert [len(task) for task in _tasks([talk] * 7)] == [3, 3, 1]


def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.documents == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(config(tmp_path), tmp_path / "set", on_progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chats.jsonl", "texts.jsonl"]


ENDLESS = """
import multiprocessing, sys, time
from pathlib import Path
from tests.data.test_prepare import config, make

def slowly(progress):
    if progress.documents == 1:
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    time.sleep(0.02)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    make(config(folder, shard_tokens=1024, processes=int(sys.argv[2])), folder / "set", on_progress=slowly)
"""


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Any, array: Any, **settings: Any) -> None:
        file.write(b"the beginning")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fireside.data.shards.np.save", full)
    with pytest.raises(DataError, match=r"cannot be written: .*No space left"):
        make(config(tmp_path), tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chats.jsonl", "texts.jsonl"]


def start_slowly(folder: Path, processes: int) -> subprocess.Popen[str]:
    program = folder / "slowly.py"
    program.write_text(ENDLESS)
    command = [sys.executable, str(program), str(folder), str(processes)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": "src:."}, stdout=subprocess.PIPE, text=True)


def test_a_kill_leaves_no_dataset_and_is_no_hindrance(tmp_path: Path) -> None:
    process = start_slowly(tmp_path, processes=1)
    partial = tmp_path / ".set.partial"
    deadline = time.monotonic() + 60
    while not list(partial.glob("train-texts-*.npy")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(partial.glob("train-texts-*.npy"))  # it was in the middle of it
    with pytest.raises(DataError, match="not a prepared dataset"):
        open_dataset(tmp_path / "set")
    make(config(tmp_path), tmp_path / "set")
    open_dataset(tmp_path / "set").verify()
    assert not partial.exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes as Linux shows them")
def test_a_kill_takes_its_processes_along(tmp_path: Path) -> None:
    def running(pid: str) -> bool:
        try:
            return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    process = start_slowly(tmp_path, processes=2)
    assert process.stdout is not None
    workers = process.stdout.readline().split()
    assert workers
    assert all(map(running, workers))
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(map(running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, workers))


def test_a_dying_process_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fireside.data import parallel

    monkeypatch.setattr(parallel, "_prepare", os._exit)
    monkeypatch.setattr(parallel, "_tasks", lambda items: iter([1]))
    with pytest.raises(DataError, match="lower processes"):
        make(config(tmp_path, processes=2), tmp_path / "set")


def test_the_type_of_ids_follows_the_vocabulary() -> None:
    assert token_dtype(65536) == np.uint16
    assert token_dtype(65537) == np.uint32


def test_the_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from fireside.cli.main import app

    config(tmp_path)
    (tmp_path / "data.toml").write_text('[[sources]]\nname = "texts"\npath = "texts.jsonl"\n')  # beside the file
    command = ["data", "prepare", str(tmp_path / "data.toml"), "--tokenizer", str(small_folder())]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "set")])
    assert result.exit_code == 0, result.output
    assert "dropped, exact duplicate: 20" in result.output
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "set"), "--json"])
    assert json.loads(result.stdout)["sources"][0]["read"] == 200
    (tmp_path / "data.toml").write_text('[[sources]]\nname = "texts"\npath = "x"\ncolour = 1')
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "new")])
    assert isinstance(result.exception, DataError)
    assert "sources.0.colour" in str(result.exception)


@pytest.mark.parametrize(
    "command",
    [
        ["data", "prepare", "data.toml", "--out", "set", "--tokenizer", "x"],
        ["data", "train-classifier", "good", "bad", "--out", "x.safetensors"],
        ["tokenizer", "train", "texts", "--out", "x"],
        ["tokenizer", "inspect", "x", "--text", "texts"],
    ],
)
def test_commands_say_which_extra_they_need(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from fireside.cli.main import app

    monkeypatch.setattr("fireside.cli.training_extra._MODULES", ("numpy", "no_such_module"))
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, FiresideError)
    assert str(result.exception).startswith("this needs no_such_module: pip install 'fireside[train]'")
