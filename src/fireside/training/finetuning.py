"""A recipe for the commonest wish: this model, on these conversations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fireside.models.local import LocalModel
from fireside.training.recipe import Recipe
from fireside.training.recipe_file import recipe_from_values

_LONGEST_ROW = 1024  # tokens: more cost memory, and few conversations have them


def finetuning_recipe(
    base: LocalModel, chats: Path, *, lora: bool, name: str | None = None, overrides: Sequence[str] = ()
) -> Recipe:
    """The recipe that `fireside finetune` runs. Raises `RecipeError` for overrides that cannot be."""
    values: dict[str, Any] = {
        "name": name or f"{base.name}-tuned",
        "base": str(base.path),
        "sft": {
            "packing": {"sequence_length": min(_LONGEST_ROW, base.config.max_position_embeddings)},
            "micro_batch_tokens": 2048,
            "mask_documents": True,  # short conversations share a row, and have nothing to do with each other
            "data": {
                "validation_fraction": 0.05,
                "sources": [{"name": "chats", "path": str(chats.expanduser().absolute())}],
            },
        },
    }
    if lora:
        values["lora"] = {}
    return recipe_from_values(values, overrides, source="fine-tuning", folder=Path.cwd())
