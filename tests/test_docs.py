"""What the documents list is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fireside.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def test_every_setting_is_documented_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    assert rows == list(Settings.model_fields)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_pages_name_are_there(page: Path) -> None:
    known = [ROOT, ROOT / "src" / "fireside"]
    for name in re.findall(r"`((?:\w+/)+\w*\.?\w*)`", page.read_text()):
        if name.split("/")[0] in {"OWNER", "hf"}:
            continue
        assert any((base / name).exists() for base in known), f"{page.name} names {name}"
