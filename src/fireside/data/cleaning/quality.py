"""Quality rules of Gopher (Rae et al. 2021, table A1), C4 (Raffel et al. 2020) and FineWeb (Penedo et al. 2024)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from fireside.data.cleaning.outcome import Block, Outcome, Reason, dropped
from fireside.data.config import QualityConfig
from fireside.data.documents import Document

# Frequent words by language: short lists, of which any text of some length has several.
STOP_WORDS = {
    "en": frozenset(["the", "be", "to", "of", "and", "that", "have", "with"]),  # Gopher's own
    "fr": frozenset(["le", "la", "les", "de", "des", "et", "est", "que", "dans", "qui"]),
    "es": frozenset(["el", "la", "los", "de", "que", "y", "en", "un", "por", "con"]),
    "de": frozenset(["der", "die", "das", "und", "zu", "ist", "nicht", "mit", "ein", "den"]),
    "it": frozenset(["il", "la", "di", "che", "e", "un", "per", "non", "con", "le"]),
    "pt": frozenset(["o", "a", "de", "que", "e", "do", "da", "em", "um", "para"]),
    "nl": frozenset(["de", "het", "een", "van", "en", "in", "is", "dat", "op", "te"]),
    "ru": frozenset(["и", "в", "не", "на", "что", "с", "он", "как", "это", "по"]),
}
SENTENCE_ENDS = (".", "!", "?", "”", "’", '"', "'", "…", "。", "！", "？", "」", "』", "।", "؟", "۔", ":", ";", ")")
BULLETS = ("•", "‣", "▶", "◦", "*", "-", "–", "●")
SHORT_LINE = 30
HEAD = 5000  # words in which common ones must occur

_LETTER = re.compile(r"[^\W\d_]")


def judge_quality(config: QualityConfig) -> Block:
    """A block that drops what fails one of the rules that `config` has on. The first that fails is the reason.

    A wrapped line of prose counts as a line: books wrapped at a width want the rule on punctuated lines off.
    """

    def judge(document: Document) -> Outcome:
        reason = next(_failures(document, config), None)
        return Outcome(document) if reason is None else dropped(reason)

    return judge


def _failures(document: Document, config: QualityConfig) -> Iterator[Reason]:
    text = document.text
    words = text.split()
    count = len(words)
    if _under(count, config.min_words):
        yield Reason.TOO_FEW_WORDS
    if _over(count, config.max_words):
        yield Reason.TOO_MANY_WORDS
    if not count:
        return
    mean = sum(map(len, words)) / count
    if _spaced(document) and (_under(mean, config.min_mean_word_length) or _over(mean, config.max_mean_word_length)):
        yield Reason.WORD_LENGTH
    if _over(max(text.count("#"), text.count("...") + text.count("…")) / count, config.max_symbol_ratio):
        yield Reason.SYMBOLS
    if config.no_lorem_ipsum and "lorem ipsum" in text.lower():
        yield Reason.LOREM_IPSUM
    if config.no_curly_brackets and "{" in text:
        yield Reason.CURLY_BRACKETS
    yield from _line_failures([line for raw in text.split("\n") if (line := raw.strip())], config)
    if config.min_alphabetic_words is not None:
        alphabetic = sum(word.isalpha() or _LETTER.search(word) is not None for word in words)
        if alphabetic / count < config.min_alphabetic_words:
            yield Reason.NOT_ALPHABETIC
    common = STOP_WORDS.get(document.language or "")
    if common and _under(len(common.intersection(map(str.lower, words[:HEAD]))), config.min_stop_words):
        yield Reason.STOP_WORDS


def _line_failures(lines: Sequence[str], config: QualityConfig) -> Iterator[Reason]:
    def share(has: Callable[[str], bool]) -> float:
        return sum(map(has, lines)) / len(lines)

    if _over(share(lambda line: line.startswith(BULLETS)), config.max_bullet_lines):
        yield Reason.BULLETS
    if _over(share(lambda line: line.endswith(("...", "…"))), config.max_ellipsis_lines):
        yield Reason.ELLIPSES
    if _under(share(lambda line: line.endswith(SENTENCE_ENDS)), config.min_punctuated_lines):
        yield Reason.UNPUNCTUATED
    if _over(share(lambda line: len(line) < SHORT_LINE), config.max_short_lines):
        yield Reason.SHORT_LINES


def _spaced(document: Document) -> bool:
    """Whether the script has blanks between words; without, a length of words means nothing."""
    return document.text[:HEAD].count(" ") * 40 > len(document.text[:HEAD])


def _under(value: float, limit: float | None) -> bool:
    return limit is not None and value < limit


def _over(value: float, limit: float | None) -> bool:
    return limit is not None and value > limit
