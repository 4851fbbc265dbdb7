"""Each block by itself: what it keeps, changes and drops, and why."""

from __future__ import annotations

import json
import re
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fireside.data.cleaning.classifier import QualityClassifier, judge_by, train_classifier
from fireside.data.cleaning.decontamination import drop_contaminated, evaluation_runs
from fireside.data.cleaning.language import keep_languages
from fireside.data.cleaning.outcome import Outcome, Reason
from fireside.data.cleaning.pii import mask_pii, masked
from fireside.data.cleaning.pipeline import build_blocks, clean, clean_conversation
from fireside.data.cleaning.quality import judge_quality
from fireside.data.cleaning.repetition import judge_repetition, repeated_share
from fireside.data.cleaning.unicode import _MOJIBAKE, repair_unicode, repaired
from fireside.data.cleaning.words import word_hashes
from fireside.data.config import CleaningConfig, QualityConfig, RepetitionConfig
from fireside.data.documents import Conversation, DataError, Document
from tests.data.files import chat, prose, write_jsonl

NO_RUNS = np.empty(0, np.uint64)
GOOD = "\n\n".join(prose(seed, 60) for seed in range(4))


def document(text: str, language: str | None = "en") -> Document:
    return Document(text, "id", "source", language)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text\n", "plain text\n"),
        ("cafÃ© â€œquotedâ€\x9d", "café “quoted”"),
        ("already café, «naïve», Â£5", "already café, «naïve», £5"),
        ("e\u0301", "é"),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("bell\x07 zero\x00 mark\ufeff \u202eturned\u202c", "bell zero mark turned"),
        ("family 👩\u200d👧 and a\u200cb", "family 👩\u200d👧 and a\u200cb"),
    ],
)
def test_unicode_is_repaired(text: str, expected: str) -> None:
    assert repaired(text) == expected
    outcome = repair_unicode(document(text))
    assert outcome.document == document(expected)
    assert outcome.reason == (None if text == expected else Reason.UNICODE)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_repairing_twice_is_repairing_once(text: str) -> None:
    once = repaired(text)
    assume(not _MOJIBAKE.search(once))  # what was decoded wrongly twice is repaired once
    assert repaired(once) == once


def test_nothing_but_controls_is_dropped() -> None:
    assert repair_unicode(document("\x00\x01 ")) == Outcome(None, Reason.EMPTY)


def test_languages() -> None:
    keep = keep_languages(["en", "fr"], 0.65)
    french = "Tous les êtres humains naissent libres et égaux en dignité et en droits."
    kept = keep(document(french, None)).document
    assert kept is not None
    assert kept.language == "fr"
    german = "Alle Menschen sind frei und gleich an Würde und Rechten geboren."
    assert keep(document(german, None)).reason == Reason.LANGUAGE
    assert keep_languages(["en"], 1.0)(document("Hm ok no.", None)).document is None


def test_good_text_passes_every_rule() -> None:
    assert judge_quality(QualityConfig())(document(GOOD)) == Outcome(document(GOOD))
    assert judge_repetition(RepetitionConfig())(document(GOOD)) == Outcome(document(GOOD))


@pytest.mark.parametrize(
    ("text", "changed", "reason"),
    [
        ("Too few words here.", {}, Reason.TOO_FEW_WORDS),
        (GOOD, {"max_words": 100}, Reason.TOO_MANY_WORDS),
        ("a b c d e f. " * 20, {}, Reason.WORD_LENGTH),
        ("incomprehensibilities antidisestablishment. " * 30, {}, Reason.WORD_LENGTH),
        (GOOD + " #" * 60, {}, Reason.SYMBOLS),
        ("\n".join(f"- {prose(n, 8)}" for n in range(20)), {}, Reason.BULLETS),
        (GOOD + "\n" + "\n".join(f"{prose(n, 12)[:-1]} and more" + "…" for n in range(9)), {}, Reason.ELLIPSES),
        ("the 1234 5678 and 9012 3456. " * 20, {}, Reason.NOT_ALPHABETIC),
        ("stone river mountain light window. " * 20, {}, Reason.STOP_WORDS),
        (GOOD + " Lorem ipsum dolor.", {}, Reason.LOREM_IPSUM),
        (GOOD + " if (x) { y }", {"no_curly_brackets": True}, Reason.CURLY_BRACKETS),
        ("\n".join(prose(n, 12)[:-1] for n in range(20)), {}, Reason.UNPUNCTUATED),
        ("\n".join(prose(n, 3) for n in range(60)), {}, Reason.SHORT_LINES),
    ],
)
def test_quality_rules(text: str, changed: dict[str, object], reason: Reason) -> None:
    config = QualityConfig.model_validate(changed)
    assert judge_quality(config)(document(text)).reason == reason
    off = QualityConfig.model_validate(
        {name: None for name, value in config.model_dump().items() if not isinstance(value, bool)}
        | {"no_lorem_ipsum": False}
    )
    assert judge_quality(off)(document(text)).document is not None


def test_stop_words_need_a_known_language() -> None:
    text = "stone river mountain light window. " * 20
    assert judge_quality(QualityConfig())(document(text, None)).document is not None
    assert judge_quality(QualityConfig())(document(text, "fi")).document is not None


def test_scripts_without_blanks_have_no_word_length() -> None:
    text = "人人生而自由，在尊严和权利上一律平等。" * 3 + "\n"
    config = QualityConfig(min_words=1)
    assert judge_quality(config)(document(text * 5, "zh")).document is not None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{prose(1, 10)}\n" * 5 + GOOD, Reason.DUPLICATE_LINES),
        (f"{prose(1, 60)}\n" * 2 + prose(2, 20), Reason.DUPLICATE_LINES),
        ("\n\n".join([f"short\nlines {n}" for n in range(3)] + ["one\ntwo"] * 3), Reason.DUPLICATE_LINES),
        ("buy now " * 30 + prose(3, 60), Reason.TOP_NGRAM),
        (f"{prose(1, 40)} {prose(2, 100)} {prose(1, 40)}", Reason.DUPLICATE_NGRAMS),
    ],
)
def test_repetition_rules(text: str, reason: Reason) -> None:
    assert judge_repetition(RepetitionConfig())(document(text)).reason == reason


def test_repeated_paragraphs() -> None:
    paragraphs = [f"{prose(n, 9)}\n{prose(n + 50, 9)}" for n in range(3)]
    text = "\n\n".join(paragraphs + paragraphs[:2])
    config = RepetitionConfig(max_duplicate_lines=None, max_duplicate_line_characters=None)
    assert judge_repetition(config)(document(text)).reason == Reason.DUPLICATE_PARAGRAPHS


def test_the_share_of_repeated_runs() -> None:
    assert repeated_share(word_hashes("a b c d e f g h"), 3) == 0
    assert repeated_share(word_hashes("a b c d a b c e"), 3) == 3 / 8
    assert repeated_share(word_hashes("a a a a"), 3) == 3 / 4
    assert repeated_share(word_hashes("a"), 3) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to jane.doe+x@mail.example.org, please.", "Write to [email], please."),
        ("Call (555) 123-4567 or 555-123-4567.", "Call [phone] or [phone]."),
        ("Call 1 (555) 123-4567 or 1-555-123-4567.", "Call [phone] or [phone]."),
        ("Call +49 30 1234567!", "Call [phone]!"),
        ("Card 4111 1111 1111 1111 ends", "Card [card] ends"),
        ("Card 4111-1111-1111-1112 fails Luhn", None),
        ("From 8.8.8.8 to 192.168.0.1", "From [ip] to 192.168.0.1"),
        ("From 2001:4860:4860::8888 on", "From [ip] on"),
        ("In 1914-1918, pages 10-20, 3.14159, at 12:30:45, version 1.2.3", None),
        ("In 1999 1,000,000 people; ISBN 978-3-16-148410-0; 20240131", None),
        ("a@b, @name, user@localhost", None),
        ("std::vector::iterator, 999.999.999.999", None),
    ],
)
def test_personal_data_is_masked(text: str, expected: str | None) -> None:
    assert masked(text) == (text if expected is None else expected)
    assert mask_pii(document(text)).reason == (None if expected is None else Reason.PII)


def test_conversations_are_masked_as_a_whole() -> None:
    call = {"function": {"name": "call", "arguments": {"number": "555-123-4567"}}}
    messages = [*chat("Call 555-123-4567"), {"role": "assistant", "content": "", "tool_calls": [call]}]
    conversation = Conversation(messages, "id", "source")
    cleaned, reasons = clean_conversation(conversation, CleaningConfig())
    assert reasons == [Reason.PII]
    assert "555" not in json.dumps(cleaned.messages)
    assert json.dumps(cleaned.messages).count("[phone]") == 2
    assert clean_conversation(conversation, CleaningConfig(pii=False)) == (conversation, [])


def test_contamination_is_found_whatever_the_punctuation(tmp_path: Path) -> None:
    question = "Which of these rivers is the longest one that flows through the whole of Europe?"
    write_jsonl(tmp_path / "eval.jsonl", [{"query": question, "choices": ["Volga", "too short a text"]}])
    block = drop_contaminated(evaluation_runs([str(tmp_path / "eval.jsonl")], 13), 13)
    leaked = GOOD + " WHICH of these rivers is the longest one -- that flows through the whole of Europe"
    assert block(document(leaked)).reason == Reason.CONTAMINATED
    assert block(document(GOOD + " Which of these rivers is the longest one? Too short a text.")).document is not None
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(DataError, match=r"bad\.jsonl:1"):
        evaluation_runs([str(tmp_path / "bad.jsonl")], 13)


def test_the_classifier_learns_saves_and_judges(tmp_path: Path) -> None:
    good = [prose(seed, 60) for seed in range(40)]
    bad = [f"{prose(seed, 5)} casino bonus click free win {prose(seed + 99, 10)} casino win" for seed in range(40)]
    classifier, accuracy = train_classifier(good, bad)
    assert accuracy == 1
    classifier.save(tmp_path / "c.safetensors")
    loaded = QualityClassifier.load(tmp_path / "c.safetensors")
    assert loaded.probability(prose(1000, 60)) == classifier.probability(prose(1000, 60)) > 0.5
    judge = judge_by(loaded, 0.5)
    assert judge(document(prose(1000, 60))).document is not None
    assert judge(document("free casino bonus, click to win")).reason == Reason.CLASSIFIER
    with pytest.raises(DataError, match="ten are the least"):
        train_classifier(good, bad[:3])
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"no\.safetensors"):
        QualityClassifier.load(tmp_path / "no.safetensors")


def test_blocks_in_order_with_their_reasons() -> None:
    blocks = build_blocks(CleaningConfig(languages=("en",)), NO_RUNS)
    cleaned, reasons = clean(document(GOOD + "\r\nMail a.b@example.org", None), blocks)
    assert cleaned is not None
    assert cleaned.text == GOOD + "\nMail [email]"
    assert reasons == [Reason.UNICODE, Reason.PII]
    assert clean(document("\x00Short.", None), blocks)[1][0] == Reason.UNICODE
    nothing = CleaningConfig(unicode=False, quality=None, repetition=None, pii=False, deduplication=None)
    assert build_blocks(nothing, NO_RUNS) == []


def seconds(work: Callable[[str], str], text: str) -> float:
    """Of the processor: others may take its time meanwhile."""

    def once() -> float:
        start = time.thread_time()
        work(text)
        return time.thread_time() - start

    return min(once() for _ in range(3))


def test_numbers_that_are_almost_telephones_take_no_more_time_than_telephones() -> None:
    bad, good = ("+1234567890123456789a " * 3000, "+123 4567 8901 234 5 ok " * 3000)
    assert masked(bad) == bad
    assert "[phone]" in masked("+49 30 1234567 24h")
    assert seconds(masked, bad) < 30 * seconds(masked, good)


def test_runs_of_marks_are_capped_and_take_linear_time() -> None:
    marks = "\u0301\u0323" * 20
    assert repaired(f"x{marks}y") == unicodedata.normalize("NFC", f"x{marks[:30]}y")
    assert repaired(f"x{marks[:30]}y") == unicodedata.normalize("NFC", f"x{marks[:30]}y")
    assert repaired("—" * 100 + "é") == "—" * 100 + "é"
    short, long = ("x" + "\u0301\u0323" * count for count in (2_000, 40_000))
    assert seconds(repaired, long) < 100 * seconds(repaired, short)


def test_no_combining_mark_is_part_of_a_word() -> None:
    """Which is how long runs of them are found."""
    marks = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.combining(chr(code))]
    assert not [mark for mark in marks if re.match(r"[\w\s]", mark)]
