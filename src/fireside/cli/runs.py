"""`fireside runs`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fireside.training.run import Run


def runs(
    names: Annotated[list[str] | None, typer.Argument(metavar="[RUN ...]", help="Runs to compare.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List training runs; of two or more that are named, say what differs."""
    from fireside.settings import load_settings
    from fireside.training.run import list_runs, open_run

    settings = load_settings()
    found = [open_run(name, settings.runs_dir) for name in names] if names else list_runs(settings.runs_dir)
    if as_json:
        typer.echo(json.dumps([_as_json(run) for run in found], indent=2))
        return
    if not found:
        typer.echo(f"There are no runs in {settings.runs_dir} yet; fireside train begins one.")
        return
    _print_table(found)
    if len(found) > 1 and names:
        _print_differences(found)


def _as_json(run: Run) -> dict[str, Any]:
    return {"name": run.name, "path": str(run.folder), **run.record, "status": run.status}


def _print_table(found: list[Run]) -> None:
    from fireside.training.report import stage_rows

    rows = [("RUN", "STATUS", "STAGE", "STEPS", "TOKENS", "LOSS", "BITS/BYTE", "TOKENS/S", "MINUTES")]
    for run in found:
        stages = stage_rows(run.record) or [("", "", "", "", "", "", "")]
        rows += [(run.name, str(run.status), *stage) for stage in stages]  # type: ignore[misc]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_differences(found: list[Run]) -> None:
    from fireside.training.recipe_file import differences

    first, *others = found
    for other in others:
        lines = differences(first.recipe.model_dump(mode="json"), other.recipe.model_dump(mode="json"))
        typer.echo(f"\n{other.name} beside {first.name}:" + ("" if lines else " the same recipe"))
        for line in lines:
            typer.echo(f"  {line}")
