"""A small tokenizer of our own making, and conversations for it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from fireside.models.text_parts import load_text_parts
from fireside.settings import Settings
from fireside.tokenizers.chat_template import ChatTemplate
from fireside.tokenizers.tokenizer import Tokenizer
from fireside.tokenizers.training import train_tokenizer, write_files
from fireside.tokenizers.training_config import TokenizerConfig
from tests.tokenizers.vocabularies import CORPUS

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


PLAIN = [
    {"role": "user", "content": "Hello, who are you?"},
    {"role": "assistant", "content": "A fox, or a dog."},
    {"role": "user", "content": "Say <|im_end|> please"},
    {"role": "assistant", "content": "<|im_end|>\n\n<|im_start|>user is only text."},
]
SYSTEM = [{"role": "system", "content": "Be brief.\n"}, *PLAIN]
TOOLS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Paris and Rome?"},
    {"role": "assistant", "content": "", "tool_calls": [call("weather", place="Paris"), call("weather", place="Rome")]},
    {"role": "tool", "content": "21 degrees", "tool_call_id": "c1"},
    {"role": "tool", "content": "24 degrees", "tool_call_id": "c1"},
    {"role": "assistant", "content": "\nWarm.\n"},
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": "Look:", "tool_calls": [call("weather", place="Oslo")]},
]


@cache
def small_folder() -> Path:
    """Of a tokenizer of 500 tokens."""
    folder = Path(mkdtemp(prefix="fireside-tests-"))
    write_files(train_tokenizer(CORPUS * 3, TokenizerConfig(vocab_size=500)), folder)
    return folder


@cache
def small_parts() -> tuple[Tokenizer, ChatTemplate]:
    tokenizer, template = load_text_parts(str(small_folder()), Settings())
    assert template is not None
    return tokenizer, template
