"""`fireside train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="A TOML file that says the run.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE ...]", help="Values over the recipe's: training.lr=3e-4.")
    ] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a run: its name or folder.")] = None,
) -> None:
    """Train a model by a recipe, or go on with a run that was stopped."""
    from fireside.cli.training import begin_training, run_training
    from fireside.errors import RecipeError
    from fireside.settings import load_settings
    from fireside.training.recipe_file import load_recipe
    from fireside.training.run import open_run

    settings = load_settings()
    if resume is not None:
        if recipe is not None:
            raise RecipeError("--resume goes on with the run's own recipe: leave RECIPE and its values out")
        run_training(open_run(resume, settings.runs_dir), settings)
    elif recipe is None:
        raise RecipeError("name a recipe, as in fireside train recipes/tiny.toml, or --resume RUN")
    else:
        begin_training(load_recipe(recipe, overrides or ()), settings)
