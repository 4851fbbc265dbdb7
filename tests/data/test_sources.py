"""Sources of every kind, good and bad."""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fireside.data.config import DataConfig, SourceConfig
from fireside.data.documents import Conversation, DataError, Document, Malformed, Problem
from fireside.data.sources import read_source, read_texts, source_kind
from fireside.tokenizers.chat_template import TemplateError
from fireside.tokenizers.rendering import ConversationRenderer
from tests.data.files import chat, write_jsonl, write_parquet
from tests.tokenizers.small import small_parts


def read(path: Path | str, **settings: Any) -> list[Document | Conversation | Malformed]:
    return list(read_source(SourceConfig(name="s", path=str(path), **settings)))


def texts(path: Path | str, **settings: Any) -> list[str]:
    return [item.text for item in read(path, **settings) if isinstance(item, Document)]


def problems(path: Path | str, **settings: Any) -> list[tuple[Problem, str]]:
    return [(item.problem, item.where) for item in read(path, **settings) if isinstance(item, Malformed)]


def test_text_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("One.\n\nTwo.\n")
    assert read(path) == [Document("One.\n\nTwo.\n", str(path), "s")]
    assert texts(path, separator="\n\n") == ["One.", "Two.\n"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_say_the_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_text("naïve 漢字", encoding=encoding)
    assert texts(tmp_path) == ["naïve 漢字"]


def test_an_encoding_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("naïve", encoding="latin-1")
    assert problems(tmp_path) == [(Problem.WRONG_ENCODING, str(tmp_path / "a.txt"))]
    assert texts(tmp_path, encoding="latin-1") == ["naïve"]
    with pytest.raises(DataError, match="klingon"):
        read(tmp_path, encoding="klingon")


def test_where_a_file_stops_being_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 3_000_000 + b"\xff")
    (found,) = read(tmp_path)
    assert "near byte 3,000,000" in str(found)


def test_an_enormous_text_is_cut_at_lines(tmp_path: Path) -> None:
    text = "".join(f"line {n} of many\n" for n in range(200_000))
    (tmp_path / "a.txt").write_text(text)
    found = texts(tmp_path, max_document_bytes=100_000)
    assert "".join(found) == text
    assert max(map(len, found)) <= 100_000
    assert all(part.endswith("\n") for part in found)


def test_files_without_text(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "binary.txt").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"text" * 1000)[:-20])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    found = {Path(where).name: problem for problem, where in problems(tmp_path)}
    assert found == {
        "empty.txt": Problem.EMPTY,
        "blank.txt": Problem.EMPTY,
        "binary.txt": Problem.BINARY,
        "cut.txt.gz": Problem.UNREADABLE,
        "bad.parquet": Problem.UNREADABLE,
    }


def test_malformed_lines_are_named_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        b'{"text": "good"}',
        b"{not json",
        b"",
        b'{"text": 5}',
        b'{"title": "x"}',
        b'"a string"',
        b"[1]",
        b'{"text": "\xff"}',
    ]
    lines += [b'{"text": "\\u0000 is a character"}', b"\0\0\0", b'{"text": " "}', b'{"text": "' + b"x" * 5000 + b'"}']
    path.write_bytes(b"\n".join(lines))
    assert problems(path, max_document_bytes=4000) == [
        (Problem.MALFORMED, f"{path}:2"),
        (Problem.NO_TEXT, f"{path}:4"),
        (Problem.NO_TEXT, f"{path}:5"),
        (Problem.MALFORMED, f"{path}:7"),
        (Problem.WRONG_ENCODING, f"{path}:8"),
        (Problem.BINARY, f"{path}:10"),
        (Problem.EMPTY, f"{path}:11"),
        (Problem.TOO_LONG, f"{path}:12"),
    ]
    assert texts(path, max_document_bytes=4000) == ["good", "a string", "\0 is a character"]
    with pytest.raises(DataError, match=r"a\.jsonl:2: the line is not JSON"):
        read(path, on_error="fail")


def test_deep_json_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "first"}\n' + "[" * 100_000 + "\n")
    assert [problem for problem, _ in problems(tmp_path)] == [Problem.MALFORMED]


def test_one_json_list(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"text": "one"}, {"text": "two"}], indent=1))
    assert texts(tmp_path) == ["one", "two"]


def test_parquet_and_gzip_and_fields(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"body": "one", "key": 7}, {"body": None, "key": 8}])
    assert [item for item in read(tmp_path, text_field="body", id_field="key") if isinstance(item, Document)] == [
        Document("one", "7", "s")
    ]
    assert problems(tmp_path, text_field="body")[0][0] == Problem.NO_TEXT
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "zipped"}\n'))
    assert texts(tmp_path) == ["zipped"]


def test_folders_and_globs_in_order(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a/1.txt", "a/.hidden.txt", ".git/x.txt", "a/program.exe", "c.md"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    assert texts(tmp_path) == ["a/1.txt", "b/2.txt", "c.md"]
    assert texts(f"{tmp_path}/**/*.txt") == ["a/1.txt", "b/2.txt"]
    for nothing in (tmp_path / "no" / "such", f"{tmp_path}/*.parquet"):
        with pytest.raises(DataError, match="check the source's path"):
            read(nothing)


def test_a_limit(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{}, {"text": "one"}, {"text": "two"}, {"text": "three"}])
    assert texts(tmp_path, limit=2) == ["one", "two"]


MESSAGES = chat("Hi", "Hello")
FORMS = [
    ("openai", {"messages": MESSAGES}),
    ("openai", {"messages": json.dumps(MESSAGES), "tools": "[]"}),
    ("openai", {"conversations": MESSAGES}),
    ("sharegpt", {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}),
    ("alpaca", {"instruction": "Hi", "input": "", "output": "Hello"}),
    ("pairs", {"question": "Hi", "answer": "Hello"}),
    ("pairs", {"prompt": "Hi", "completion": "Hello"}),
    ("pairs", {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}),
    ("pairs", {"prompt": json.dumps(MESSAGES[:1]), "response": "Hello"}),
    ("pairs", {"instruction": "Hi", "context": "", "response": "Hello"}),
    ("pairs", {"id": 3, "problem": "Hi", "solution": "Hello"}),
]


@pytest.mark.parametrize(("kind", "row"), FORMS)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_forms_of_conversations_are_detected(tmp_path: Path, kind: str, row: dict[str, Any], suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    (write_jsonl if suffix == "jsonl" else write_parquet)(path, [row])
    assert source_kind(SourceConfig(name="s", path=str(path))) == kind
    (found,) = read(path)
    assert isinstance(found, Conversation)
    assert found.messages == MESSAGES


def test_pairs_with_more_beside(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Who?", "context": "Ada feeds the cat.", "response": "Ada."},
        {"system": "Be brief.", "question": "Why?", "answer": "[1] [{}]"},
        {"question": "Why?", "answer": 5},
    ]
    first, second, third = read(write_jsonl(tmp_path / "a.jsonl", rows))
    assert isinstance(first, Conversation) and isinstance(second, Conversation) and isinstance(third, Malformed)
    assert first.messages == chat("Who?\n\nAda feeds the cat.", "Ada.")
    assert second.messages == [{"role": "system", "content": "Be brief."}, *chat("Why?", "[1] [{}]")]
    assert "a pair has question and answer" in third.detail


@pytest.mark.parametrize(
    "row",
    [
        {"text": "prose", "question": "Hi", "answer": "Hello"},
        {"question": "Which?", "choices": ["A", "B"], "answer": "A"},
        {"question": "Is it?", "passage": "...", "answer": True},
        {"prompt": "only that"},
    ],
)
def test_rows_that_only_look_like_pairs(tmp_path: Path, row: dict[str, Any]) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    assert source_kind(SourceConfig(name="s", path=str(path))) == "documents"


def test_answers_marked_as_bad_are_nothing_to_imitate(tmp_path: Path) -> None:
    rows = [{"prompt": MESSAGES[:1], "completion": MESSAGES[1:], "label": label} for label in (True, False)]
    good, bad = read(write_jsonl(tmp_path / "a.jsonl", rows))
    assert isinstance(good, Conversation) and good.messages == MESSAGES
    assert isinstance(bad, Malformed) and "label is false" in bad.detail


def test_a_text_field_that_was_set_comes_first(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"body": "An article.", "prompt": "Hi", "response": "Hello"}])
    assert source_kind(SourceConfig(name="s", path=str(path))) == "pairs"
    assert source_kind(SourceConfig(name="s", path=str(path), text_field="body")) == "documents"


def test_calls_in_every_form(tmp_path: Path) -> None:
    arguments = {"place": "Rome"}
    write_jsonl(
        tmp_path / "a.jsonl",
        [
            {
                "conversations": [
                    {"from": "human", "value": "Weather?"},
                    {"from": "function_call", "value": json.dumps({"name": "weather", "arguments": arguments})},
                    {"from": "observation", "value": "warm"},
                    {"from": "gpt", "value": "Warm."},
                ],
                "tools": json.dumps([{"name": "weather"}]),
            }
        ],
    )
    (found,) = read(tmp_path)
    assert isinstance(found, Conversation)
    assert [message["role"] for message in found.messages] == ["user", "assistant", "tool", "assistant"]
    assert found.messages[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": arguments}
    assert found.tools == [{"name": "weather"}]


def test_bad_conversations_are_counted(tmp_path: Path) -> None:
    rows = [
        {"messages": MESSAGES},
        {"messages": MESSAGES[:1]},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}]},
        {"messages": []},
        {"messages": "no list"},
        {"messages": [{"role": "wizard", "content": "Hi"}]},
        {"messages": [{"role": "user", "content": None}, MESSAGES[1]]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, MESSAGES[1]]},
        {"messages": [MESSAGES[0], {"role": "assistant", "content": "", "tool_calls": [{"function": {}}]}]},
        {"text": "a document"},
    ]
    found = Counter(problem for problem, _ in problems(write_jsonl(tmp_path / "a.jsonl", rows)))
    assert found == {Problem.NO_ASSISTANT: 2, Problem.BAD_CONVERSATION: 7}


def test_what_nobody_answers_is_left_out(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"messages": [*MESSAGES, {"role": "user", "content": "Bye"}]}])
    (found,) = read(tmp_path)
    assert isinstance(found, Conversation)
    assert found.messages == MESSAGES


def test_every_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("prose")
    write_jsonl(tmp_path / "b.jsonl", [{"messages": MESSAGES}])
    sources = (
        SourceConfig(name="a", path=str(tmp_path / "a.txt")),
        SourceConfig(name="b", path=str(tmp_path / "b.jsonl")),
    )
    assert list(read_texts(sources)) == ["prose", "Hi", "Hello"]
    held_out = sources[0].model_copy(update={"use": "validation"})
    assert list(read_texts((held_out, sources[1]))) == ["Hi", "Hello"]


def test_hugging_face_datasets_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, subset: str | None, *, split: str, revision: str, streaming: bool) -> Any:
        asked.append((name, subset, split, revision, streaming))
        return iter([{"text": "one"}, {"text": "two"}])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert texts("hf:someone/something", subset="en", hf_split="test", revision="v1") == ["one", "two"]
    assert set(asked) == {("someone/something", "en", "test", "v1", True)}
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install datasets"):
        read("hf:someone/something")


@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet", "gzip"])
def test_bytes_that_were_read_are_told(tmp_path: Path, kind: str) -> None:
    rows = [{"text": f"{n} " * 500} for n in range(300)]
    path = tmp_path / f"a.{'jsonl.gz' if kind == 'gzip' else 'txt' if kind == 'text' else kind}"
    if kind == "parquet":
        write_parquet(path, rows)
    else:
        write_jsonl(path, rows)
        if kind == "gzip":
            path.write_bytes(gzip.compress(path.read_bytes()))
    heard: list[int] = []
    assert list(read_source(SourceConfig(name="a", path=str(path)), heard.append))
    assert abs(sum(heard) - path.stat().st_size) < 10
    assert kind != "parquet" or len(heard) == 5


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ([{"name": "a", "path": "x"}, {"name": "a", "path": "y"}], "two sources are named 'a'"),
        ([{"name": "a", "path": "x", "weight": 1}, {"name": "b", "path": "y"}], "add up to 1: "),
        ([{"name": "A B", "path": "x"}], "name"),
        ([{"name": "a", "path": "x", "colour": "red"}], "colour"),
        ([], "at least 1"),
    ],
)
def test_configs_are_checked(sources: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DataConfig.model_validate({"sources": sources})


def test_none_can_be_written_in_toml() -> None:
    values = {"sources": [{"name": "a", "path": "none", "separator": "none"}]}
    values["cleaning"] = {"repetition": "none", "quality": {"min_words": "none"}}
    config = DataConfig.model_validate(values)
    assert config.cleaning.repetition is None
    assert config.cleaning.quality is not None
    assert config.cleaning.quality.min_words is None
    assert (config.sources[0].separator, config.sources[0].path) == (None, "none")
    with pytest.raises(ValueError, match="pii"):
        DataConfig.model_validate(values | {"cleaning": {"pii": "none"}})


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "assistant", "content": [1]}]},
        {"messages": [{"role": "assistant", "content": [[1]]}]},
        {"messages": [{"role": ["user"], "content": "x"}]},
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": 5}]},
        {"instruction": "x", "output": "y", "history": 5},
        {"instruction": "x", "output": "y", "history": {"a": "b"}},
    ],
)
def test_values_of_another_type_are_a_bad_conversation(tmp_path: Path, row: dict[str, Any]) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    assert problems(path) == [(Problem.BAD_CONVERSATION, f"{path}:1")]


KEYS = "messages conversations from value role content tool_calls function name arguments tools instruction output"
KEYS += " question answer prompt response context"
KEYS += " history text system type"
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 5) | st.sampled_from(["user", "assistant", "gpt", "tool_call", "[1]"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=4)  # type: ignore[arg-type]
    ),
    max_leaves=20,
)

MESSAGE = st.fixed_dictionaries(
    {"role": st.just("assistant") | JSON_VALUES, "content": st.just("x") | JSON_VALUES},
    optional={"tool_calls": JSON_VALUES},
)
ROWS = (
    JSON_VALUES
    | st.fixed_dictionaries({"messages": st.lists(MESSAGE, min_size=1, max_size=2)}, optional={"tools": JSON_VALUES})
    | st.fixed_dictionaries({"prompt": st.lists(MESSAGE, max_size=2) | JSON_VALUES, "completion": JSON_VALUES})
    | st.fixed_dictionaries({"instruction": JSON_VALUES, "output": st.just("x"), "history": JSON_VALUES})
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=5), st.sampled_from(["auto", "openai", "sharegpt", "alpaca", "pairs"]))
def test_any_json_value_is_an_item_or_malformed(rows: list[Any], kind: str) -> None:
    with TemporaryDirectory() as folder:
        path = write_jsonl(Path(folder, "a.jsonl"), [{}, *rows])
        items = read(path, kind=kind)
    assert len(items) == len(rows) + 1
    for item in items:
        if isinstance(item, Conversation):
            with suppress(TemplateError):
                ConversationRenderer(*small_parts()).render(item.messages, item.tools)


def test_damage_inside_a_file_is_malformed(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(random.Random(0).randbytes(2000)))
    content[10] = 0xFF  # a kind of block that deflate does not have
    for name in ("a.txt.gz", "b.jsonl.gz"):
        (tmp_path / name).write_bytes(content)
    wrong = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"))
    pq.write_table(pa.table({"text": wrong}), tmp_path / "c.parquet")
    assert [problem for problem, _ in problems(tmp_path)] == [Problem.UNREADABLE] * 3
