"""`fireside runs`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fireside.errors import FiresideError

if TYPE_CHECKING:
    from fireside.training.results import StageResult
    from fireside.training.run import Run


def runs(
    names: Annotated[list[str] | None, typer.Argument(metavar="[RUN ...]", help="Runs to compare.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List training runs; of two or more that are named, compare what came out and say what differs."""
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
    if names and len(found) > 1:
        _compare(found)
    else:
        _print_list(found)


def _as_json(run: Run) -> dict[str, Any]:
    """The record as it is, the recipe, and of each stage what tables show."""
    from fireside.training.results import stage_results

    record = run.record
    for result in stage_results(run):
        record["stages"][result.stage] |= {**vars(result), "tokens_per_second": result.tokens_per_second}
    return {
        "name": run.name,
        "path": str(run.folder),
        **record,
        "status": run.status,
        "recipe": _recipe(run),
    }


def _recipe(run: Run) -> dict[str, Any] | None:
    """None if it cannot be read, as that of another version may be: the list is of all runs."""
    try:
        return run.recipe.model_dump(mode="json")
    except FiresideError:
        return None


def _print_list(found: Sequence[Run]) -> None:
    from fireside.training.results import HEADINGS, stage_results

    rows: list[Sequence[str]] = [("RUN", "STATUS", "STAGE", *(heading.upper() for heading in HEADINGS))]
    for run in found:
        results = stage_results(run)
        cells = [(result.stage, *result.cells().values()) for result in results] or [("",) * (len(HEADINGS) + 1)]
        rows += [(run.name, str(run.status), *row) for row in cells]
    _print_table(rows)


def _compare(found: Sequence[Run]) -> None:
    """A column for each run: what every stage came to, with changes against the first run, then recipes, then where
    they ran."""
    from fireside.training.results import stage_results

    results = [{result.stage: result for result in stage_results(run)} for run in found]
    rows: list[Sequence[str]] = [("", *(run.name for run in found)), ("status", *(str(run.status) for run in found))]
    for stage in dict.fromkeys(stage for of_run in results for stage in of_run):
        rows += [(), (stage,), *_stage_rows([of_run.get(stage) for of_run in results])]
    recipes = [run.recipe.model_dump(mode="json") for run in found]
    rows += [(), ("recipe",), *(_differing(recipes) or [("  the same",)])]
    records = [run.record for run in found]
    places = [
        {key: record.get(key) for key in ("environment", "git", "device", "devices", "threads")} for record in records
    ]
    for place, record in zip(places, records, strict=True):
        place["data"] = {name: stage.get("data") for name, stage in record["stages"].items()}
    rows += [(), ("made with",), *(_differing(places) or [("  the same",)])]
    _print_table(rows)


def _stage_rows(results: Sequence[StageResult | None]) -> Iterable[Sequence[str]]:
    from fireside.training.results import HEADINGS

    values = {"Loss": "loss", "Bits/byte": "bits_per_byte", "Tokens/s": "tokens_per_second", "Minutes": "seconds"}
    values |= {"Tokens": "tokens", "Memory": "peak_memory", "kWh": "kwh"}
    for heading in HEADINGS:
        cells = ["" if result is None else result.cells()[heading] for result in results]
        first, *others = [getattr(result, values.get(heading, ""), None) for result in results]
        for index, other in enumerate(others, 1):
            if first and other and first != other:
                cells[index] += f" ({(other - first) / first:+.1%})"
        yield (f"  {heading.lower().replace('kwh', 'kWh')}", *cells)


def _differing(values: Sequence[dict[str, Any]]) -> list[Sequence[str]]:
    """A row for each key whose value is not the same in all."""
    from fireside.training.recipe_file import flat

    flats = [flat(value) for value in values]
    keys = dict.fromkeys(key for one in flats for key in one)
    rows = [(key, [json.dumps(one[key], ensure_ascii=False) if key in one else "" for one in flats]) for key in keys]
    return [(f"  {key}", *cells) for key, cells in rows if len(set(cells)) > 1]


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows may be short: those are headings within the table."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    for row in rows:
        typer.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)).rstrip())
