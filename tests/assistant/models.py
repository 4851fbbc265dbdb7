"""Tiny models of text for these tests: a tokenizer trained here, a template, and an engine that follows a script."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from fireside.assistant.text_model import TextModel
from fireside.engine.scripted import Script, ScriptedClient
from fireside.models.local import GenerationDefaults
from fireside.tokenizers.chat_template import ChatTemplate
from fireside.tokenizers.tokenizer import Tokenizer

TOKENIZER_CONFIG = {"eos_token": "<|im_end|>"}
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|python_tag|>")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# The shape of Qwen2.5's: tools and calls in Hermes' format, written by the template.
HERMES_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools:{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}"
    "<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}\n<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

LLAMA_TEMPLATE = (
    '{% if tools %}Answer with {"name": ..., "parameters": ...}'
    "{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
)

ALTERNATING_TEMPLATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}<|im_end|>{% endfor %}"
)

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock", "description": "The time"}}


@cache
def tiny_tokenizer(*, markers_are_special: bool = False) -> Tokenizer:
    with TemporaryDirectory() as folder:
        return Tokenizer.from_file(save_tokenizer(Path(folder), markers_are_special), TOKENIZER_CONFIG)


def save_tokenizer(folder: Path, markers_are_special: bool = False) -> Path:
    """A `tokenizer.json`: byte-level BPE with few merges, so that words have several tokens, and characters too."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = ["the weather in the city", '{"name": "weather", "arguments": {"city": "Bern"}}']
    backend.train_from_iterator(corpus * 9, trainer)
    backend.add_tokens([tokenizers.AddedToken(m, special=markers_are_special) for m in ("<tool_call>", "</tool_call>")])
    path = folder / "tokenizer.json"
    backend.save(str(path))
    return path


def text_model(
    script: Script,
    *,
    template: str | None = CHATML,
    context_length: int = 2048,
    tokenizer: Tokenizer | None = None,
    grammar_timeout: float = 30.0,
) -> tuple[TextModel, ScriptedClient]:
    tokenizer = tokenizer or tiny_tokenizer()
    engine = ScriptedClient(script)
    model = TextModel(
        name="tiny",
        tokenizer=tokenizer,
        engine=engine,
        chat_template=ChatTemplate(template, bos_token=None, eos_token="<|im_end|>") if template else None,
        context_length=context_length,
        defaults=GenerationDefaults(eos_token_ids=(special("<|im_end|>"),)),
        grammar_timeout=grammar_timeout,
    )
    return model, engine


def ids(text: str, *, end: bool = True, tokenizer: Tokenizer | None = None) -> list[int]:
    """The tokens a model would write `text` with, the end of its turn included."""
    encoded = (tokenizer or tiny_tokenizer()).encode(text, allow_special=True, add_bos=False)
    return [*encoded, special("<|im_end|>")] if end else encoded


def special(text: str) -> int:
    (token_id,) = tiny_tokenizer().encode(text, allow_special=True, add_bos=False)
    return token_id


def pieces(text: str, cuts: Iterable[int]) -> Sequence[str]:
    """`text` cut at some positions (taken modulo its length)."""
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


def call(name: str = "weather", **arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"
