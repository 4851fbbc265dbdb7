"""The blocks that a config asks for, in order, and a document's way through them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from fireside.data.cleaning.classifier import QualityClassifier, judge_by
from fireside.data.cleaning.decontamination import drop_contaminated
from fireside.data.cleaning.language import keep_languages
from fireside.data.cleaning.outcome import Block, Outcome, Reason
from fireside.data.cleaning.pii import mask_pii, masked
from fireside.data.cleaning.quality import judge_quality
from fireside.data.cleaning.repetition import judge_repetition
from fireside.data.cleaning.unicode import repair_unicode, repaired
from fireside.data.cleaning.words import Hashes
from fireside.data.config import CleaningConfig
from fireside.data.documents import Conversation, Document


def build_blocks(config: CleaningConfig, evaluation: Hashes) -> list[Block]:
    """`evaluation`: what `evaluation_runs` found. Raises `DataError` for a classifier that cannot be read."""
    blocks: list[Block] = []
    if config.unicode:
        blocks.append(repair_unicode)
    if config.languages:
        blocks.append(keep_languages(config.languages, config.min_language_probability))
    if config.quality is not None:
        blocks.append(judge_quality(config.quality))
    if config.repetition is not None:
        blocks.append(judge_repetition(config.repetition))
    if config.classifier is not None:
        blocks.append(judge_by(_classifier(config.classifier.path), config.classifier.threshold))
    if len(evaluation):
        blocks.append(drop_contaminated(evaluation, config.decontamination_ngram))
    if config.pii:
        blocks.append(mask_pii)
    return blocks


def clean(document: Document, blocks: Iterable[Block]) -> tuple[Document | None, list[Reason]]:
    """The document as the blocks leave it, None if one dropped it, and the reasons of all that was done."""
    reasons = []
    current: Document | None = document
    for block in blocks:
        assert current is not None
        outcome = block(current)
        current = outcome.document
        if outcome.reason is not None:
            reasons.append(outcome.reason)
        if current is None:
            break
    return current, reasons


def clean_conversation(
    conversation: Conversation, config: CleaningConfig, decontaminate: Block = Outcome
) -> tuple[Conversation | None, list[Reason]]:
    """With what messages and calls say repaired and masked, or None if `decontaminate` drops its text; the rules on
    quality are made for documents."""
    if decontaminate is not Outcome:
        text = "\n".join(message["content"] for message in conversation.messages)
        whole = Document(repaired(text) if config.unicode else text, conversation.id, conversation.source)
        if decontaminate(whole).document is None:
            return None, [Reason.CONTAMINATED]
    reasons: dict[Reason, None] = {}

    def changed(text: str) -> str:
        for wanted, change, reason in ((config.unicode, repaired, Reason.UNICODE), (config.pii, masked, Reason.PII)):
            before, text = text, change(text) if wanted else text
            if text != before:
                reasons[reason] = None
        return text

    messages = [
        {key: _mapped(value, changed) if key in ("content", "tool_calls") else value for key, value in message.items()}
        for message in conversation.messages
    ]
    return replace(conversation, messages=messages), list(reasons)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with its strings changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value


@cache
def _classifier(path: Path) -> QualityClassifier:
    return QualityClassifier.load(path.expanduser())
