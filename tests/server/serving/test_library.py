from __future__ import annotations

from pathlib import Path

import pytest

from fireside.models.local import LocalModel
from fireside.server.serving import library as library_module
from fireside.server.serving.library import Library
from fireside.settings import Settings
from tests.engine.tiny_model import write_tiny_model


def test_what_a_model_needs_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_model(tmp_path / "models" / "one", num_hidden_layers=1)
    library = Library(Settings(home=tmp_path, model="one", kv_cache_memory="1 MiB", draft_model=None))
    read, memory_need = [], library_module.memory_need

    def noted(model: LocalModel, **how: object) -> object:
        read.append(model.name)
        return memory_need(model, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(library_module, "memory_need", noted)

    def need() -> tuple[int, int | None]:
        model = library.models()["one"]
        assert isinstance(model, LocalModel)
        need = library.need(model, None)
        return need.least - need.weights, need.set_cache

    assert need() == need() == (1 << 20, 1 << 20) and read == ["one"]
    write_tiny_model(tmp_path / "models" / "one", num_hidden_layers=2)
    assert need() == (1 << 20, 1 << 20) and read == ["one", "one"]
