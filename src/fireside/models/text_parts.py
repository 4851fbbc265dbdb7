"""The text side of a model: its tokenizer and chat template, also of a folder that holds nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fireside.models.json_file import read_json
from fireside.models.local import hf_chat_template, resolve_model

if TYPE_CHECKING:
    from fireside.settings import Settings
    from fireside.tokenizers.chat_template import ChatTemplate
    from fireside.tokenizers.tokenizer import Tokenizer


def load_text_parts(name_or_path: str, settings: Settings) -> tuple[Tokenizer, ChatTemplate | None]:
    """Of a model by name or path, or of a folder with a `tokenizer.json`, as `fireside tokenizer train` makes them.

    Raises `ModelError`, or `TemplateError` for a broken template.
    """
    from fireside.tokenizers.tokenizer import Tokenizer

    folder = Path(name_or_path).expanduser()
    if (folder / "tokenizer.json").is_file() and not (folder / "config.json").is_file():
        tokenizer = Tokenizer.from_file(folder / "tokenizer.json", read_json(folder / "tokenizer_config.json"))
        source = hf_chat_template(folder)
    else:
        model = resolve_model(name_or_path, settings)
        tokenizer, source = model.load_tokenizer(), model.chat_template
    return tokenizer, None if source is None else template_for(tokenizer, source)


def template_for(tokenizer: Tokenizer, source: str) -> ChatTemplate:
    """The chat template with the tokenizer's own names for bos and eos. Raises `TemplateError`."""
    from fireside.tokenizers.chat_template import ChatTemplate

    bos, eos = (
        None if token_id is None else tokenizer.token_bytes(token_id).decode("utf-8", errors="replace")
        for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id)
    )
    return ChatTemplate(source, bos_token=bos, eos_token=eos)
