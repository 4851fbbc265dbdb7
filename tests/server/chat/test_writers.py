"""Who is remembered of those that wrote an answer, whatever became of what each of them was asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fireside.server.chat.tables import Message
from fireside.server.chat.writers import writers_before


def model(name: str, version: str | None = "1") -> Any:
    return SimpleNamespace(name=name, version=version)


def answer(*pieces: tuple[Any, str]) -> Message:
    """As the routes make it: by models in turn, each with the text that it came to; by nobody at first: a person."""
    message = Message(content="", model=None, model_version=None, parameters=None, finish_reason=None)
    for writer, text in pieces:
        if writer is not None:
            message.earlier_writers = writers_before(message, writer)
            message.model, message.model_version = writer.name, writer.version
            message.parameters, message.finish_reason = {"temperature": 0.5}, "length"
        message.content += text
    return message


def told(message: Message) -> list[tuple[str | None, str | None, int]]:
    return [(one["model"], one["model_version"], one["end"]) for one in message.earlier_writers or []]


A, B, TRAINED = model("a"), model("b"), model("a", "2")


def test_one_model_is_alone_however_often_it_is_asked() -> None:
    assert answer((A, "One "), (A, "two "), (A, "three")).earlier_writers is None


def test_others_are_remembered_with_where_their_text_ends() -> None:
    message = answer((A, "Één "), (B, "two "), (B, "three "), (A, "four"))
    assert told(message) == [("a", "1", 4), ("b", "1", 14)]
    assert message.earlier_writers is not None
    assert message.earlier_writers[0]["parameters"] == {"temperature": 0.5}
    assert message.earlier_writers[0]["finish_reason"] == "length"


def test_other_weights_of_one_name_are_another() -> None:
    assert told(answer((A, "One "), (TRAINED, "two"))) == [("a", "1", 4)]


def test_a_person_is_one_of_them() -> None:
    assert told(answer((None, "As I would say "), (A, "it."))) == [(None, None, 15)]


def test_who_wrote_nothing_is_not() -> None:
    assert answer((A, ""), (B, "All of it")).earlier_writers is None
    assert answer((A, "One "), (B, ""), (A, "two")).earlier_writers is None
    assert told(answer((A, "One "), (B, ""), (TRAINED, "two"))) == [("a", "1", 4)]
