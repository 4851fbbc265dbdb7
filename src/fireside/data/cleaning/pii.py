"""Masking of personal data that has a form: e-mail addresses, phone, card and IP numbers."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace

from fireside.data.cleaning.outcome import Outcome, Reason
from fireside.data.documents import Document

EMAIL, PHONE, CARD, IP = "[email]", "[phone]", "[card]", "[ip]"

_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![\w-])")
# Each begins with a class of characters and looks behind it afterwards: ten times faster than the other way round.
_CARD = re.compile(r"[3-6](?<![\w.-].)\d{3}(?:[ -]?\d){9,15}(?![\w-])")
_IPV4 = re.compile(r"\d(?<![\w.].)\d{0,2}(?:\.\d{1,3}){3}(?!\.?\w)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:])")
_PHONE = re.compile(
    r"[+(\d](?<![\w.+-].)(?:"
    r"(?<=\+)\d{1,3}+(?:[ .-]?\(?\d{1,4}+\)?){2,5}"  # international; runs of digits are divided in one way only
    r"|(?:(?<=\()|(?<=1)[ .-]\()\d{3}\)[ ]?\d{3}[ .-]\d{4}"  # (555) 123-4567
    r"|(?:(?<=\d)|(?<=1)[ .-]\d)\d{2}([.-])\d{3}\1\d{4}"  # 555-123-4567, 555.123.4567
    r")(?![\w-]|\.\d)"
)
_MIN_PHONE_DIGITS = 8


def mask_pii(document: Document) -> Outcome:
    """A block that puts `[email]`, `[phone]`, `[card]` and `[ip]` in the place of what they say.

    Careful rather than complete: a card must satisfy Luhn's check, an address must be public, a number without signs
    of a phone is left alone. Names and postal addresses are not looked for.
    """
    text = masked(document.text)
    return Outcome(document) if text == document.text else Outcome(replace(document, text=text), Reason.PII)


def masked(text: str) -> str:
    if "@" in text:
        text = _EMAIL.sub(EMAIL, text)
    text = _CARD.sub(lambda match: CARD if _is_card(match[0]) else match[0], text)
    text = _IPV4.sub(_mask_address, text)
    if "::" in text or text.count(":") >= 7:
        text = _IPV6.sub(_mask_address, text)
    return _PHONE.sub(_mask_phone, text)


def _mask_phone(match: re.Match[str]) -> str:
    return PHONE if sum(map(str.isdigit, match[0])) >= _MIN_PHONE_DIGITS else match[0]


def _mask_address(match: re.Match[str]) -> str:
    try:
        return IP if ipaddress.ip_address(match[0]).is_global else match[0]
    except ValueError:
        return match[0]


def _is_card(text: str) -> bool:
    """Luhn's check (ISO/IEC 7812-1), for the lengths that cards have."""
    digits = [int(character) for character in text if character.isdigit()]
    if not 13 <= len(digits) <= 19:
        return False
    doubled = (digit * 2 - 9 * (digit > 4) if index % 2 else digit for index, digit in enumerate(reversed(digits)))
    return sum(doubled) % 10 == 0
