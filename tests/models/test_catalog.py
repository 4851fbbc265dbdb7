"""The catalog's own consistency: what `pull` relies on."""

from __future__ import annotations

import re

import pytest

from fireside.errors import ModelError
from fireside.models.catalog import CATALOG, CatalogEntry, HubSource, WheelSource, find_entry
from fireside.models.download import parse_hub_source
from fireside.models.local import GenerationDefaults
from fireside.models.names import is_model_name
from fireside.settings import Settings


@pytest.mark.parametrize("entry", CATALOG.values(), ids=CATALOG)
def test_entry_can_be_fetched_and_checked(entry: CatalogEntry) -> None:
    assert is_model_name(entry.name) and entry.name == entry.name.lower()
    assert entry.sources and entry.license and entry.description
    GenerationDefaults(eos_token_ids=(), **entry.generation)  # type: ignore[arg-type]  # all names are known
    for source in entry.sources:
        if isinstance(source, HubSource):
            assert parse_hub_source(str(source)) == source
    if len(entry.sources) > 1 or any(isinstance(source, WheelSource) for source in entry.sources):
        # Only a sum makes several sources one model, and a wheel names none of its own.
        assert re.fullmatch("[0-9a-f]{64}", entry.sha256 or "") and entry.size_bytes


def test_default_model_is_there_with_two_sources() -> None:
    entry = find_entry(Settings().model)
    assert [type(source) for source in entry.sources] == [WheelSource, HubSource]
    assert entry.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert len({source.file for source in entry.sources}) == 1
    assert entry.generation["temperature"] == 0 and entry.generation["repetition_penalty"] > 1


def test_names_in_any_case_and_the_nearest_for_others() -> None:
    assert find_entry("SmolLM2-135M") is CATALOG["smollm2-135m"]
    with pytest.raises(ModelError, match=r"did you mean qwen3-0\.6b"):
        find_entry("qwen3-06b")
    with pytest.raises(ModelError, match=r"it holds smollm2-135m, .*hf:OWNER/REPO"):
        find_entry("zzz")
