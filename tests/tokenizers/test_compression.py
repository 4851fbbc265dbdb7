from __future__ import annotations

import pytest

from fireside.tokenizers.compression import SAMPLES, bytes_per_token, script_of
from tests.tokenizers.small import small_parts


@pytest.mark.parametrize(
    ("name", "script"),
    [("English", "Latin"), ("Russian", "Cyrillic"), ("Chinese", "Han"), ("Korean", "Hangul"), ("Hindi", "Devanagari")],
)
def test_scripts(name: str, script: str) -> None:
    assert script_of(SAMPLES[name]) == script
    assert script_of("12 + 3") == "no letters"


def test_bytes_per_token() -> None:
    tokenizer, _ = small_parts()
    assert bytes_per_token(tokenizer, []) == 0
    assert bytes_per_token(tokenizer, ["\u4e00"]) in (1.0, 1.5, 3.0)
    assert bytes_per_token(tokenizer, ["the dog", "the dog"]) == 7 / len(tokenizer.encode("the dog"))
