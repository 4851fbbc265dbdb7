"""Reading and writing `tokenizer.json`, the file of Hugging Face's `tokenizers`.

Only the list of added tokens is parsed in Python; the rest of the file (megabytes of vocabulary) goes to Rust as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from fireside.errors import ModelError

ADDED_TOKENS = re.compile(r'"added_tokens"\s*:\s*')  # stands before the vocabulary in every file
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
SPECIAL_LISTS = ("additional_special_tokens", "extra_special_tokens")


@dataclass(frozen=True)
class TokenizerParts:
    """What `Tokenizer` is made of. `backend` flags all of `added_tokens` (by id) as special; they say what is true."""

    backend: tokenizers.Tokenizer
    added_tokens: dict[int, tokenizers.AddedToken]
    vocab_size: int  # the number of tokens; ids run from 0 without gaps
    bos_token_id: int | None
    eos_token_id: int | None
    add_bos: bool


def read(path: Path, config: Mapping[str, Any]) -> TokenizerParts:
    """Read a `tokenizer.json` with the names and habits of its `tokenizer_config.json`. Raises `ModelError`."""
    try:
        text = path.read_text(encoding="utf-8")
        entries = _merge(_section(text)[0], config)
        sealed = [entry | {"special": not entry["normalized"]} for entry in entries if "id" in entry]
        backend = _without_gaps(_with_section(text, sealed))
    except Exception as error:  # the Rust library raises bare Exception for a file that it cannot use
        raise ModelError(f"{path} is not a usable tokenizer.json: {error}") from error
    backend.no_truncation()
    backend.no_padding()
    named = [entry for entry in entries if "id" not in entry and backend.token_to_id(entry["content"]) is not None]
    backend.add_special_tokens([_token(entry) for entry in named])
    added: dict[int, tokenizers.AddedToken] = {}
    for entry in entries:
        token_id = backend.token_to_id(entry["content"])
        if token_id is not None and not entry["normalized"]:
            added[token_id] = _token(entry)
    bos, eos = (_id_of(backend, config.get(name)) for name in ("bos_token", "eos_token"))
    habit = config.get("add_bos_token")
    if habit is None:  # not said: what the post-processor puts before an empty text
        habit = bos is not None and backend.encode("").ids[:1] == [bos]
    return TokenizerParts(backend, added, backend.get_vocab_size(), bos, eos, bool(habit))


def with_added_tokens(text: str, added: Mapping[int, tokenizers.AddedToken]) -> str:
    """The tokenizer in `text` with the flags of `added` and, of the tokens beyond the vocabulary, only those."""
    entries = [
        {"id": i, "content": token.content} | {flag: getattr(token, flag) for flag in FLAGS}
        for i, token in added.items()
    ]
    others = [entry for entry in _section(text)[0] if entry["normalized"]]  # matched by Rust, as they always were
    return _with_section(text, sorted(entries + others, key=lambda entry: entry["id"]))


def _section(text: str) -> tuple[list[dict[str, Any]], int, int]:
    """The added tokens of a tokenizer.json, and where their list begins and ends in the text."""
    key = ADDED_TOKENS.search(text)
    if key is None:
        raise ValueError("it has no list of added_tokens")
    entries, end = json.JSONDecoder().raw_decode(text, key.end())
    return entries, key.end(), end


def _with_section(text: str, entries: Iterable[Mapping[str, Any]]) -> str:
    _, start, end = _section(text)
    return text[:start] + json.dumps(list(entries), ensure_ascii=False) + text[end:]


def _without_gaps(text: str) -> tokenizers.Tokenizer:
    """The tokenizer in `text`. Rust counts on from the number of tokens when it adds one, so that ids must have no
    gaps; where they have, tokens that no text contains fill them."""
    backend = tokenizers.Tokenizer.from_str(text)
    ids = set(backend.get_vocab(with_added_tokens=True).values())
    gaps = set(range(max(ids, default=-1))) - ids
    if not gaps:
        return backend
    contents = json.loads(text)
    contents["model"]["vocab"] |= {f"[EMPTY_{i}]": i for i in gaps}
    return tokenizers.Tokenizer.from_str(json.dumps(contents))


def _merge(entries: Iterable[Mapping[str, Any]], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The added tokens of both files; the config has the last word. Those that it only names have no `id`."""
    defaults = dict.fromkeys(FLAGS, False)
    merged = {entry["content"]: defaults | dict(entry) for entry in entries}
    for token_id, entry in (config.get("added_tokens_decoder") or {}).items():
        known = merged.get(entry["content"], defaults | {"id": int(token_id)})
        merged[entry["content"]] = known | {key: entry[key] for key in ("content", *FLAGS) if key in entry}
    for content in _special_names(config):
        merged.setdefault(content, defaults | {"content": content})["special"] = True
    for entry in merged.values():
        if entry["special"]:
            entry["normalized"] = False  # a control token is matched as it is written, never as respelled
    return list(merged.values())


def _special_names(config: Mapping[str, Any]) -> Iterator[str]:
    lists = [config.get(name) for name in SPECIAL_LISTS]
    listed = [item for values in lists for item in (values.values() if isinstance(values, dict) else values or ())]
    for value in [*(config.get(name) for name in SPECIAL_NAMES), *listed]:
        if content := _content(value):
            yield content


def _content(value: object) -> str | None:
    """A token in tokenizer_config.json is its text, or an object that holds it."""
    content = value.get("content") if isinstance(value, Mapping) else value
    return content if isinstance(content, str) else None


def _id_of(backend: tokenizers.Tokenizer, value: object) -> int | None:
    content = _content(value)
    token_id: int | None = backend.token_to_id(content) if content else None
    return token_id


def _token(entry: Mapping[str, Any]) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(entry["content"], **{flag: entry[flag] for flag in FLAGS})
