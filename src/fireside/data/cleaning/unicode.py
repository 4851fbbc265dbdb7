"""Unicode repair: mojibake, composition, control characters, line ends."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from fireside.data.cleaning.outcome import Outcome, Reason, dropped
from fireside.data.documents import Document

# C0 and C1 controls but tab and newline; surrogates; noncharacters; byte order marks; bidirectional overrides
_UNWANTED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufeff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)
# A leading byte of UTF-8 and one that continues it, as Latin-1 and Windows-1252 show them. ftfy itself reads 8 MB/s.
_MOJIBAKE = re.compile(
    "[\xc2-\xf4][\x80-\xbf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013\u2014\u2018-\u201a"
    "\u201c-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]"
)
_ODD_RUN = re.compile(r"[^\w\s\x00-\x7f]{31,}")  # what a long run of combining marks is part of
_MAX_MARKS = 30  # on one letter: Unicode's stream-safe text format (UAX #15, section 13)
_LINE_ENDS = re.compile("\r\n?|[\u0085\u2028\u2029]")


def repair_unicode(document: Document) -> Outcome:
    """UTF-8 that was read as Latin-1 or Windows-1252 becomes what it was (by ftfy, https://ftfy.readthedocs.io), text
    is composed (NFC), line ends become newlines, control characters and endless runs of combining marks go."""
    text = repaired(document.text)
    if text == document.text:
        return Outcome(document)
    if not text or text.isspace():
        return dropped(Reason.EMPTY)
    return Outcome(replace(document, text=text), Reason.UNICODE)


def repaired(text: str) -> str:
    text = _LINE_ENDS.sub("\n", text)
    if text.isascii():
        return _UNWANTED.sub("", text)
    if _MOJIBAKE.search(text):
        text = "\n".join(_decoded(line) if _MOJIBAKE.search(line) else line for line in text.split("\n"))
    return unicodedata.normalize("NFC", _ODD_RUN.sub(_with_few_marks, _UNWANTED.sub("", text)))


def _with_few_marks(match: re.Match[str]) -> str:
    """NFC takes a time quadratic in a run of marks. Nothing but mischief has more of them."""
    kept, run = [], 0
    for character in match[0]:
        run = run + 1 if unicodedata.combining(character) else 0
        if run <= _MAX_MARKS:
            kept.append(character)
    return "".join(kept)


def _decoded(line: str) -> str:
    import ftfy
    from ftfy.badness import is_bad

    return ftfy.fix_encoding(line) if is_bad(line) else line
