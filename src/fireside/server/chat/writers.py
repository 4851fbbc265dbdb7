"""Who wrote an answer that one model began and another went on with."""

from __future__ import annotations

from typing import Any

from fireside.assistant.text_model import TextModel
from fireside.server.chat.tables import Message


def last_writer(message: Message) -> dict[str, Any]:
    """As `Message.earlier_writers` has them. model: None for a person, who edited it."""
    return {
        "model": message.model,
        "model_version": message.model_version,
        "parameters": message.parameters,
        "finish_reason": message.finish_reason,
        "end": len(message.content),
    }


def writers_before(message: Message, model: TextModel) -> list[dict[str, Any]] | None:
    """`earlier_writers` of the answer once `model` goes on with it: of weights each, without those that wrote nothing;
    None if it has been the same all along."""
    writers: list[dict[str, Any]] = []
    for writer in (*(message.earlier_writers or ()), last_writer(message)):
        if writers and _weights(writers[-1]) == _weights(writer):
            writers[-1] = writer
        elif writer["end"] > (writers[-1]["end"] if writers else 0):
            writers.append(writer)
    if writers and _weights(writers[-1]) == (model.name, model.version):
        writers.pop()
    return writers or None


def _weights(writer: dict[str, Any]) -> tuple[str | None, str | None]:
    return writer["model"], writer["model_version"]
