"""What a block makes of a document: kept, changed or dropped, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from fireside.data.documents import Document


class Reason(StrEnum):
    """Why a block changed or dropped a document. Counted in the manifest under these names."""

    # changes
    UNICODE = "unicode repaired"
    PII = "personal data masked"
    FOLDED = "system message put before the user's, as the template takes none"
    # drops
    EMPTY = "empty after cleaning"
    LANGUAGE = "other language"
    LANGUAGE_UNSURE = "language unsure"
    TOO_FEW_WORDS = "too few words"
    TOO_MANY_WORDS = "too many words"
    WORD_LENGTH = "odd mean word length"
    SYMBOLS = "too many symbols"
    BULLETS = "too many bullet lines"
    ELLIPSES = "too many ellipsis lines"
    NOT_ALPHABETIC = "too few alphabetic words"
    STOP_WORDS = "too few common words"
    LOREM_IPSUM = "lorem ipsum"
    CURLY_BRACKETS = "curly brackets"
    UNPUNCTUATED = "too few punctuated lines"
    SHORT_LINES = "too many short lines"
    DUPLICATE_LINES = "repeated lines"
    DUPLICATE_PARAGRAPHS = "repeated paragraphs"
    TOP_NGRAM = "one run of words too frequent"
    DUPLICATE_NGRAMS = "repeated runs of words"
    CLASSIFIER = "poor quality by the classifier"
    CONTAMINATED = "shares text with an evaluation"
    EXACT_DUPLICATE = "exact duplicate"
    NEAR_DUPLICATE = "near duplicate"
    UNRENDERABLE = "refused by the chat template"


@dataclass(frozen=True, slots=True)
class Outcome:
    """document: what goes on, None if dropped. reason: None if nothing was changed."""

    document: Document | None
    reason: Reason | None = None


Block = Callable[[Document], Outcome]  # pure: the same document, the same outcome


def dropped(reason: Reason) -> Outcome:
    return Outcome(None, reason)
