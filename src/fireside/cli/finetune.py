"""`fireside finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def finetune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model to begin with: a name or a path.")],
    chats: Annotated[Path, typer.Argument(metavar="CHATS", help="Conversations: a file, a folder or a glob.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE ...]", help="Values over the recipe's: sft.epochs=1.")
    ] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Train low-rank updates: a fraction of the memory.")] = False,
    name: Annotated[str | None, typer.Option(help="What the model will be called.")] = None,
) -> None:
    """Fine-tune a model on conversations of your own."""
    from fireside.cli.preparing import find_or_fetch
    from fireside.cli.training import begin_training
    from fireside.settings import load_settings
    from fireside.training.finetuning import finetuning_recipe

    settings = load_settings()
    base = find_or_fetch(model, settings)
    recipe = finetuning_recipe(base, chats, lora=lora, name=name, overrides=overrides or ())
    begin_training(recipe, settings)
