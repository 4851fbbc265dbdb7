"""From settings to what a worker is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from fireside.errors import ModelError
from fireside.server.registry import open_models
from fireside.settings import Settings
from tests.engine.tiny_model import write_tiny_model


def test_a_draft_model_is_found_by_name_or_path(tmp_path: Path) -> None:
    for name in ("large", "small"):
        write_tiny_model(tmp_path / "models" / name)
    for draft in ("small", str(tmp_path / "models" / "small")):
        settings = Settings(home=tmp_path, model="large", draft_model=draft, speculative_recent=False)
        config = open_models(settings).default.engine._config
        assert Path(config.draft_model) == tmp_path / "models" / "small"
        assert not config.speculative_recent
    with pytest.raises(ModelError, match=r"no model 'tiny'.*fireside pull"):
        open_models(Settings(home=tmp_path, model="large", draft_model="tiny"))
