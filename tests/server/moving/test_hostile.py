"""Uploads that mean harm, or are only broken: each is refused or left out with its reason, and takes little."""

from __future__ import annotations

import io
import json
import random
import struct
import sys
import time
import tracemalloc
import zipfile
from typing import Any

import pytest

from fireside.server.moving import archive, json_stream
from fireside.server.moving.archive import Unreadable, read
from fireside.server.moving.json_stream import Malformed, TooLarge, items
from fireside.server.moving.parsed import MAX_MESSAGE, Reason, Skipped, source_id
from tests.server.moving.exports import branched, chatgpt, encoded, librechat, native, node, openwebui, zipped
from tests.server.moving.test_formats import one, shape, taken


def test_zip_bombs() -> None:
    """One that expands a thousandfold; many that are one; all of it together too much."""
    bomb = zipped({"conversations.json": b"[" + b" " * (11 << 20) + b"]", "conversations-001.json": [branched()]})
    assert len(bomb) < 100_000
    conversations, counts = taken(bomb, max_bytes=4 << 20)
    assert counts == {Reason.BOMB: 1} and len(conversations) == 1
    random.seed(1)
    noise = random.randbytes(1 << 19).hex().encode()  # shrinks to a half
    with pytest.raises(Unreadable, match="unpacked"):
        taken(zipped({f"conversations-{number:03}.json": noise for number in range(9)}), max_bytes=1 << 20)


def test_too_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    many = zipped({f"{number}.png": b"" for number in range(50)} | {"conversations.json": [branched()]})
    assert len(taken(many)[0]) == 1
    monkeypatch.setattr(archive, "MAX_ENTRIES", 40)
    with pytest.raises(Unreadable, match="too many files"):
        taken(many)
    monkeypatch.setattr(archive, "_MAX_AT_ONCE", 2000)  # the list itself is not read
    with pytest.raises(Unreadable, match="too many files"):
        taken(many)


@pytest.mark.parametrize(
    "name",
    ["../conversations.json", "/etc/conversations.json", "a/../../x.json", "..\\x.json", "C:x.json", "a\x1bb.json"],
)
def test_names_that_lead_out_of_the_folder(name: str) -> None:
    conversations, counts = taken(zipped({name: [branched()], "conversations.json": [openwebui()]}))
    assert counts.pop(Reason.UNSAFE_NAME) == 1
    assert [c.source for c in conversations] == ["openwebui"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zips_in_zips_duplicates_encrypted_and_odd_compression() -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        made.writestr("inner.zip", zipped({"conversations.json": [branched()]}))
        made.writestr("conversations.json", encoded([branched()]))
        made.writestr("conversations.json", encoded([openwebui()]))
        made.writestr("lzma.json", encoded([branched()]), zipfile.ZIP_LZMA)
        made.writestr("secret.json", encoded([branched()]))
    raw = bytearray(data.getvalue())
    at = raw.rfind(b"secret.json") - 46  # its entry in the list at the end
    assert raw[at : at + 4] == b"PK\x01\x02"
    raw[at + 8] |= 1  # says that it is encrypted
    conversations, counts = taken(bytes(raw))
    assert len(conversations) == 1
    expected = (Reason.NESTED_ARCHIVE, Reason.DUPLICATE, Reason.ENCRYPTED, Reason.COMPRESSION)
    assert counts == dict.fromkeys(expected, 1)


def test_damaged_zips() -> None:
    whole = zipped({"conversations.json": [branched()] * 40})
    for cut in (3, 30, len(whole) // 2, len(whole) - 5):
        with pytest.raises(Unreadable, match="damaged"):
            taken(whole[:cut] if cut > 3 else b"PK\x03")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    _, counts = taken(bytes(flipped))
    assert set(counts) <= {Reason.DAMAGED, Reason.NOT_JSON, Reason.UNKNOWN_FORMAT, Reason.CHARACTERS} and counts
    lying = bytearray(zipped({"conversations.json": b"[" + b" " * 3000 + b"]"}))
    at = lying.rfind(b"PK\x01\x02")
    struct.pack_into("<I", lying, at + 24, 100)  # says that it is smaller than it is
    assert set(taken(bytes(lying))[1]) <= {Reason.DAMAGED, Reason.NOT_JSON}


@pytest.mark.parametrize("data", [b"", b"[", b"nonsense", b"\xff\xfe[]", b"[,]", b"PK", b"[NaN]", b"[]x"])
def test_what_is_not_json(data: bytes) -> None:
    try:
        conversations, counts = taken(data)
    except Unreadable:
        return
    assert conversations == [] and counts == {Reason.NOT_JSON: 1}


def test_what_comes_before_the_end_of_a_cut_file_is_there() -> None:
    data = encoded([branched(), branched(conversation_id="2"), branched(conversation_id="3")])
    conversations, counts = taken(data[:-400])
    assert len(conversations) == 2 and counts == {Reason.NOT_JSON: 1}


@pytest.mark.parametrize("value", [[], [1, None, "x", []], {}, {"chat": 5}, {"mapping": []}, "text", 5, None])
def test_json_that_is_no_export(value: Any) -> None:
    conversations, counts = taken(encoded(value))
    assert conversations == [] and set(counts) <= {Reason.UNKNOWN_FORMAT}


def test_characters_that_no_database_keeps() -> None:
    conversation, counts = one(
        chatgpt(
            node("q\0", None, ["a"], "user", "a\0b \ud800 c \udc00 d \U0001f600 \\ud800"),
            node("a", "q\0", [], "assistant", "fine"),
            title="\0\ud83d",
        )
    )
    assert conversation.messages[0].content == "ab \ufffd c \ufffd d \U0001f600 \\ud800"
    assert conversation.title == "\ufffd"
    assert counts == {Reason.CHARACTERS: 2}
    json.dumps([conversation.title, shape(conversation)]).encode()  # nothing is left that cannot be written


def test_bytes_that_are_not_utf8_and_a_mark_of_byte_order() -> None:
    data = b"\xef\xbb\xbf" + encoded([branched()]).replace(b"By its wick.", b"By \xff its \xed\xa0\x80 wick.")
    (conversation,), _ = taken(data)
    assert conversation.messages[1].content == "By \ufffd its \ufffd\ufffd\ufffd wick."


@pytest.mark.parametrize(
    "escapes", ["\\ud83d\\ude00", "\\\\ud83d", "\\ud83d", "\\ude00", "\\\\\\\\", "\\ud83d\\n", "\\u0041"]
)
def test_escapes_that_fall_on_the_end_of_a_chunk(escapes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 16)
    for shift in range(20):
        text = f'["{"x" * shift}{escapes}{escapes}y"]'
        (found,) = items(io.BytesIO(text.encode()), lambda _: None)
        expected = json.loads(text)[0]
        assert found == "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in expected), shift


@pytest.mark.parametrize(
    "value", [-1, 1e300, 10**30, "never", "9999-12-31T23:59:59+00:00", "0001-01-01", "99999999999999999999"]
)
def test_times_that_cannot_be(value: Any) -> None:
    conversation, counts = one(chatgpt(node("q", None, [], "user", "Hi", at=value), create_time=value))
    assert conversation.created_at is None and conversation.messages[0].created_at is None
    assert counts == {Reason.TIME: 2}


def test_numbers_with_a_billion_digits() -> None:
    data = encoded([chatgpt(node("q", None, [], "user", "Hi", at=7.5))]).replace(b"7.5", b"1e999999999")
    began = time.process_time()
    _, counts = taken(data)
    assert counts == {Reason.TIME: 1} and time.process_time() - began < 1


def test_fields_of_any_type_anywhere() -> None:
    """Whatever stands where something else should, the reader goes on, and the rest of the file is read."""
    random.seed(2)
    values: list[Any] = [None, 5, 1.5, True, "", "x", [], [None], {}, {"a": []}, [[]], -1, "2024-01-01", [1, "b"]]

    def spoilt(value: Any, chance: float) -> Any:
        if random.random() < chance:
            return random.choice(values)
        if isinstance(value, dict):
            return {key: spoilt(one, chance) for key, one in value.items()}
        return [spoilt(one, chance) for one in value] if isinstance(value, list) else value

    exports = [branched(), openwebui(), librechat(recursive=True), librechat(recursive=False), native()]
    found = 0
    for _ in range(300):
        conversations, counts = taken(encoded([spoilt(random.choice(exports), 0.06), branched()]))
        assert conversations and conversations[-1].title == "Candles", counts
        found += len(conversations)
        for conversation in conversations:
            names = {None, *(m.source_id for m in conversation.messages)}
            assert all(m.parent in names for m in conversation.messages)
    assert found > 350


def test_nested_too_deep_and_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = b'{"mapping":{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}}"
    conversations, counts = taken(b"[" + deep + b"," + encoded(branched()) + b"]")
    assert len(conversations) == 1 and counts == {Reason.TOO_LARGE: 1}
    monkeypatch.setattr(json_stream, "MAX_CHARACTERS", 5_000)
    large = chatgpt(node("q", None, [], "user", *["x" * 900] * 6))
    conversations, counts = taken(encoded([large, branched(), [["y" * 900] * 6]]))
    assert len(conversations) == 1 and counts == {Reason.TOO_LARGE: 2}
    monkeypatch.setattr(json_stream, "MAX_VALUES", 1_000)
    (found,) = items(io.BytesIO(encoded([[0] * 1_000])), lambda _: None)
    assert isinstance(found, TooLarge)


def test_one_endless_text_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_MAX_SILENCE", 1 << 20)

    class Endless(io.RawIOBase):
        sent = 0

        def read(self, size: int = -1, /) -> bytes:
            self.sent += size
            return (b'["' if self.sent == size else b"") + b"x" * size

    with pytest.raises(Malformed, match="longer than a conversation"):
        list(items(Endless(), lambda _: None))  # type: ignore[arg-type]


def test_a_large_file_takes_the_memory_of_one_conversation() -> None:
    data = encoded([branched(conversation_id=str(number), padding="x" * 40_000) for number in range(300)])
    found = 0
    tracemalloc.start()
    for item in read(io.BytesIO(data), "x", 64 << 20, lambda *_: None):
        found += not isinstance(item, Skipped)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == 300 and len(data) > 12_000_000
    assert peak < 2_500_000


def test_a_message_that_is_too_long_is_cut() -> None:
    conversation, counts = one(chatgpt(node("q", None, [], "user", "x" * (MAX_MESSAGE + 5))))
    assert len(conversation.messages[0].content) == MAX_MESSAGE and counts == {Reason.TOO_LONG: 1}


def test_texts_that_make_readers_slow() -> None:
    """Quadratic in the wrong hands: marks of details without an end, turns that branch at every step."""
    began = time.process_time()
    chat = openwebui()
    chat["chat"]["history"]["messages"]["r1"]["content"] = '<details type="reasoning">' * 38_000
    one([chat])
    nodes = [node("0", None, ["1"], "user", "Go")]
    for number in range(1, 3000):
        nodes.append(node(str(number), str(number - 1), [f"end{number}", str(number + 1)], "assistant", "y" * 100))
        nodes.append(node(f"end{number}", str(number), [], "assistant", "z"))
    one([chatgpt(*nodes)])
    one([chatgpt(node("q", None, [], "assistant", "【" * 900_000, metadata=sources("【1】", "y" * 4000)))])
    assert time.process_time() - began < 8


def sources(*marks_and_texts: str) -> dict[str, Any]:
    pairs = zip(marks_and_texts[::2], marks_and_texts[1::2], strict=True)
    return {"content_references": [{"matched_text": mark, "alt": text} for mark, text in pairs]}


def test_sources_that_multiply() -> None:
    """Marks that stand for themselves many times over, and one source that is shown everywhere."""
    marks = [mark for _ in range(4) for mark in ("【1】", "【1】" * 200)]
    nodes = [
        node("a", None, [], "assistant", "【1】" * 100, metadata=sources(*marks)),
        node("b", None, [], "assistant", "【2】" * 10_000, metadata=sources("【2】", "y" * 4000)),
        node("c", None, [], "assistant", "【", metadata=sources("【", "【" * 4000)),
    ]
    tracemalloc.start()
    conversation, _ = one([chatgpt(*nodes)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [len(m.content) < 80_000 for m in conversation.messages] == [True] * 3 and peak < 3_000_000
    assert "y" * 4000 in conversation.messages[1].content and conversation.messages[2].content == "【"


def test_turns_that_branch_take_no_more_than_twice_what_was_read() -> None:
    """What many branches share is then a message of its own, and nothing is lost."""
    ends = [str(number) for number in range(400)]
    conversation, counts = one(
        [
            chatgpt(
                node("q", None, ["a"], "user", "Go"),
                node("a", "q", ["b"], "assistant", "x" * 1000),
                node("b", "a", ends, "assistant", "y" * 1000),
                *(node(end, "b", [], "assistant", f"end {end}") for end in ends),
            )
        ]
    )
    assert counts == {} and len(conversation.messages) == 2 + 400
    assert shape(conversation)[1] == ("b", "q", "assistant", "x" * 1000 + "\n\n" + "y" * 1000)
    assert {(m.parent, m.content) for m in conversation.messages[2:]} == {("b", f"end {end}") for end in ends}
    assert conversation.current == "399"


def test_ids_that_pretend_to_be_others() -> None:
    """A circle of ids that are not circles of nodes."""
    long = "x" * 200
    conversation, _ = one(
        [
            chatgpt(
                node(source_id(long) or "", None, ["b"], "assistant", "1"),
                node("b", source_id(long), [long], "assistant", "2"),
                node(long, "b", [], "assistant", "3"),
            )
        ]
    )
    assert [m.content for m in conversation.messages] == ["1\n\n2\n\n3"]


@pytest.mark.parametrize("digits", [3999, 4299, 5000, 200_000])
@pytest.mark.parametrize("chunk", [65_536, 1000])
def test_numbers_of_thousands_of_digits_end_nothing(digits: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    for behind in (b"}", b" \n}", b',"a":5}'):
        number = b',{"mapping":{},"create_time":' + b"9" * digits + behind
        data = b"[" + encoded(branched()) + number + b"," + encoded(openwebui(id="9" * digits)) + b"]"
        conversations, counts = taken(data)
        assert [c.source for c in conversations] == ["chatgpt", "openwebui"] and counts[Reason.NO_MESSAGES] == 1


def test_the_list_of_a_zip_takes_little_memory() -> None:
    """However many files there are in it, and however few it says."""
    entry = b"PK\1\2" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"x"
    count = archive.MAX_ENTRIES + 1
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(entry) * count, 0, 0)
    data = b"".join([b"PK\3\4", entry * count, end])
    tracemalloc.start()
    with pytest.raises(Unreadable, match="too many files"):
        taken(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12_000_000


def test_reading_does_not_recurse() -> None:
    limit = sys.getrecursionlimit()
    chain = [
        node(str(n), str(n - 1) if n else None, [], "user" if n % 2 == 0 else "assistant", "t") for n in range(4000)
    ]
    sys.setrecursionlimit(150)
    try:
        conversation, _ = one([chatgpt(*chain)])
    finally:
        sys.setrecursionlimit(limit)
    assert len(conversation.messages) == 4000
