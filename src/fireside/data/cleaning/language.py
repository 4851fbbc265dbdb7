"""Language identification, by py3langid (Lui and Baldwin 2012: n-grams of bytes and naive Bayes, 97 languages)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cache
from typing import Any

from fireside.data.cleaning.outcome import Block, Outcome, Reason, dropped
from fireside.data.documents import Document

SAMPLE = 2000  # characters of the beginning, the middle and the end: more says nothing new


def keep_languages(languages: Collection[str], min_probability: float) -> Block:
    """A block that keeps documents in one of `languages` (ISO 639-1), and notes which."""
    wanted = frozenset(languages)

    def keep(document: Document) -> Outcome:
        language, probability = identify(document.text)
        if language not in wanted:
            return dropped(Reason.LANGUAGE)
        if probability < min_probability:
            return dropped(Reason.LANGUAGE_UNSURE)
        return Outcome(replace(document, language=language))

    return keep


def identify(text: str) -> tuple[str, float]:
    """The language that is most likely, and its probability."""
    if len(text) > 3 * SAMPLE:
        middle = len(text) // 2
        text = "\n".join((text[:SAMPLE], text[middle : middle + SAMPLE], text[-SAMPLE:]))
    language, probability = _identifier().classify(text)
    return str(language), float(probability)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
