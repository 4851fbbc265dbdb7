"""What happens to one document or conversation in a process of its own: cleaned, hashed, tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fireside.data.chat_formats import canonical
from fireside.data.cleaning.decontamination import drop_contaminated
from fireside.data.cleaning.deduplication import signature, text_hash
from fireside.data.cleaning.outcome import Reason
from fireside.data.cleaning.pipeline import build_blocks, clean, clean_conversation
from fireside.data.cleaning.words import Hashes
from fireside.data.config import CleaningConfig
from fireside.data.documents import Conversation, Document
from fireside.data.shards import Flag, TokenizedDocument
from fireside.tokenizers.chat_template import ChatTemplate, TemplateError
from fireside.tokenizers.rendering import ConversationRenderer
from fireside.tokenizers.tokenizer import Tokenizer

_ENDS = ("<|endoftext|>", "<|end_of_text|>")
_NO_HASHES: Hashes = np.empty(0, np.uint64)


@dataclass(frozen=True)
class Prepared:
    """A document's way through: tokenized is None if it was dropped, and then the last reason says why."""

    reasons: list[Reason]
    tokenized: TokenizedDocument | None = None
    exact: int = 0
    near: Hashes = field(default_factory=lambda: _NO_HASHES)


@dataclass(frozen=True)
class WorkerSetup:
    """All that a process needs to know. Text and paths only, so that it can be sent."""

    tokenizer: Path
    bos_token: str | None
    eos_token: str | None
    add_bos: bool
    template: str | None
    cleaning: CleaningConfig
    evaluation: Path | None


class Preparer:
    """Cleans and tokenises documents. Pure: the same document, the same result, in any process."""

    def __init__(self, setup: WorkerSetup) -> None:
        config = {"bos_token": setup.bos_token, "eos_token": setup.eos_token, "add_bos_token": setup.add_bos}
        self._tokenizer = Tokenizer.from_file(setup.tokenizer, config)
        self._renderer = None
        if setup.template is not None:
            template = ChatTemplate(setup.template, bos_token=setup.bos_token, eos_token=setup.eos_token)
            self._renderer = ConversationRenderer(self._tokenizer, template)
        self._cleaning = setup.cleaning
        evaluation = _NO_HASHES if setup.evaluation is None else np.load(setup.evaluation, mmap_mode="r")
        self._blocks = build_blocks(setup.cleaning, evaluation)
        self._decontaminate = drop_contaminated(evaluation, setup.cleaning.decontamination_ngram)
        self._dtype = token_dtype(self._tokenizer.vocab_size)
        self._begin, self._end = document_borders(self._tokenizer)

    def prepare(self, items: Sequence[Document | Conversation]) -> list[Prepared]:
        return [self._document(item) if isinstance(item, Document) else self._conversation(item) for item in items]

    def _document(self, document: Document) -> Prepared:
        cleaned, reasons = clean(document, self._blocks)
        if cleaned is None:
            return Prepared(reasons)
        ids = [self._begin, *self._tokenizer.encode(cleaned.text, add_bos=False), self._end]
        deduplication = self._cleaning.deduplication
        near = signature(cleaned.text, deduplication) if deduplication and deduplication.near else _NO_HASHES
        size = len(cleaned.text.encode("utf-8", "replace"))
        return Prepared(
            reasons, TokenizedDocument(np.array(ids, self._dtype), None, size), text_hash(cleaned.text), near
        )

    def _conversation(self, conversation: Conversation) -> Prepared:
        assert self._renderer is not None  # `prepare` has seen to it
        reasons: list[Reason] = []
        try:
            cleaned, reasons = clean_conversation(conversation, self._cleaning, self._decontaminate)
            if cleaned is None:
                return Prepared(reasons)
            conversation = cleaned
            rendered = self._renderer.render(conversation.messages, conversation.tools)
            text = canonical(conversation.messages, conversation.tools)
        except (TemplateError, RecursionError):  # the latter for arguments that are hundreds of objects deep
            return Prepared([*reasons, Reason.UNRENDERABLE])
        if not any(rendered.targets[1:]):
            return Prepared([*reasons, Reason.EMPTY])
        if rendered.is_folded:
            reasons = [*reasons, Reason.FOLDED]
        flags = np.array(rendered.targets, np.uint8) * Flag.TARGET
        flags[rendered.message_starts] |= Flag.MESSAGE_START
        flags[rendered.turn_starts] |= Flag.TURN_START
        flags[: rendered.preamble] |= Flag.PREAMBLE
        size = sum(len(str(message["content"]).encode("utf-8", "replace")) for message in conversation.messages)
        return Prepared(reasons, TokenizedDocument(np.array(rendered.ids, self._dtype), flags, size), text_hash(text))


def token_dtype(vocab_size: int) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """The smallest type that holds every id."""
    return np.dtype(np.uint16) if vocab_size <= 1 << 16 else np.dtype(np.uint32)


def document_borders(tokenizer: Tokenizer) -> tuple[int, int]:
    """The tokens that a document begins and ends with.

    The end is `<|endoftext|>` or its like, else eos. The beginning is bos where texts customarily begin with it, else
    the end of the text before, so that the first word is learned too.
    """
    spelled = [tokenizer.encode(text, allow_special=True, add_bos=False) for text in _ENDS]
    known = [ids[0] for text, ids in zip(_ENDS, spelled, strict=True) if tokenizer.added_tokens.get(text)]
    end = known[0] if known else tokenizer.eos_token_id
    if end is None:
        raise ValueError("the tokenizer has neither <|endoftext|> nor an eos token to end a document with")
    begin = tokenizer.bos_token_id if tokenizer.add_bos and tokenizer.bos_token_id is not None else end
    return begin, end
