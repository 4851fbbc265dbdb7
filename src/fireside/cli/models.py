"""`fireside models`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fireside.models.local import LocalModel


def models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the models that are here."""
    from fireside.models.local import DamagedModel, LocalModel, list_models
    from fireside.settings import load_settings

    settings = load_settings()
    found = list_models(settings.home)
    usable = [model for model in found if isinstance(model, LocalModel)]
    damaged = [model for model in found if isinstance(model, DamagedModel)]
    if as_json:
        entries = [_as_json(model, is_default=model.name == settings.model) for model in usable]
        entries += [{"name": model.name, "path": str(model.path), "error": model.reason} for model in damaged]
        typer.echo(json.dumps(entries, indent=2))
        return
    if usable:
        _print_table(usable, settings.model)
    elif not damaged:
        typer.echo(f"There are no models in {settings.models_dir} yet; fireside pull fetches the default one.")
    for model in damaged:
        typer.echo(f"{model.name} cannot be used: {model.reason}", err=True)


def _as_json(model: LocalModel, *, is_default: bool) -> dict[str, Any]:
    return {
        "name": model.name,
        "default": is_default,
        "format": model.format,
        "architecture": str(model.config.architecture),
        "type": model.weight_type,
        "base": model.base and model.base.name,
        "size_bytes": model.size_bytes,
        "context_length": model.config.max_position_embeddings,
        "license": model.license,
        "path": str(model.path),
    }


def _print_table(models: Sequence[LocalModel], default: str) -> None:
    """Plain columns, the path last and never cut, so that it can be copied."""
    from fireside.models.fetching import format_bytes

    rows = [("NAME", "SIZE", "TYPE", "CONTEXT", "LICENCE", "PATH")]
    for model in models:
        rows.append(
            (
                f"{model.name} (default)" if model.name == default else model.name,
                format_bytes(model.size_bytes),
                model.weight_type if model.base is None else f"adapter of {model.base.name}",
                f"{model.config.max_position_embeddings:,}",
                model.license or "not stated",
                str(model.path),
            )
        )
    name, size, kind, context, licence, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    for row in rows:
        typer.echo(
            f"{row[0]:{name}}  {row[1]:>{size}}  {row[2]:{kind}}  {row[3]:>{context}}  {row[4]:{licence}}  {row[5]}"
        )
