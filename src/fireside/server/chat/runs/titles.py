"""Titles of conversations: their first words at once, and better ones from the model."""

from __future__ import annotations

import re
from contextlib import aclosing

from fireside.assistant.text import ChatPrompt
from fireside.assistant.text_model import TextModel
from fireside.server.api.generation import text_options
from fireside.server.api.schemas.generation import GenerationFields

MAX_TITLE = 80  # characters
_PRIORITY = 50  # behind everybody's answers
_MAX_TOKENS = 24
_MAX_WORDS = 6  # small models answer with a whole sentence
_QUESTION = 1_000  # characters that are enough to see what it is about

_ASK = (
    "Write a short title, of at most six words, for a conversation that begins with the message below. "
    "Answer with the title alone, in the language of the message.\n\n"
)
_WRAPPING = " \t*_#`\"'“”‘’«»„.:-"
_LABEL = re.compile(r"(?i)^[\W_]*title[\W_]*:")


def first_words(text: str) -> str:
    """A title from the beginning of a text, cut between words."""
    text = " ".join(text[: 4 * MAX_TITLE].split())
    if len(text) <= MAX_TITLE:
        return text
    return text[: MAX_TITLE - 1].rsplit(" ", 1)[0].rstrip(",;:.") + "…"


async def write_title(model: TextModel, question: str) -> str:
    """What the model calls a conversation that begins with `question`; empty if it has nothing to say.

    Raises what `TextModel.generate` raises.
    """
    prompt = ChatPrompt(messages=[{"role": "user", "content": _ASK + question[:_QUESTION]}])
    fields = GenerationFields.model_validate({"temperature": 0.0, "priority": _PRIORITY, "seed": 0})
    options = text_options(fields, model, max_tokens=_MAX_TOKENS, logprobs=None)
    text = ""
    async with aclosing(model.generate(prompt, options)) as chunks:
        async for chunk in chunks:
            text += chunk.text
            if "\n" in text.strip():
                break
    return clean_title(text)


def clean_title(text: str) -> str:
    """The first words of the first line, without the quotes, marks and labels that models put around a title."""
    line = next((line for line in text.replace("\0", "").splitlines() if line.strip(_WRAPPING)), "")
    line = _LABEL.sub("", line).strip(_WRAPPING)
    line = " ".join(line.split()[:_MAX_WORDS])
    if len(line) > MAX_TITLE:
        line = line[:MAX_TITLE].rsplit(" ", 1)[0]
    return "" if line.startswith("<think>") else line.rstrip(_WRAPPING + ",;(–—-")
