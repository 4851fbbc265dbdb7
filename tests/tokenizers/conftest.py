from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from fireside.gguf import GGUFFile
from fireside.tokenizers.tokenizer import Tokenizer
from tests.tokenizers.vocabularies import BYTE_LEVEL, Pair, byte_level, sentencepiece

KINDS = (*BYTE_LEVEL, "sentencepiece")


@pytest.fixture(scope="session")
def make_pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    folder: Path = tmp_path_factory.mktemp("vocabularies")
    return cache(lambda kind: sentencepiece(folder) if kind == "sentencepiece" else byte_level(folder, kind))


@pytest.fixture(scope="session")
def make_tokenizer(make_pair: Callable[[str], Pair]) -> Callable[[str], Tokenizer]:
    return cache(lambda kind: Tokenizer.from_gguf(GGUFFile(make_pair(kind).path)))


@pytest.fixture(params=KINDS, scope="session")
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def pair(kind: str, make_pair: Callable[[str], Pair]) -> Pair:
    return make_pair(kind)


@pytest.fixture(scope="session")
def tokenizer(kind: str, make_tokenizer: Callable[[str], Tokenizer]) -> Tokenizer:
    return make_tokenizer(kind)
