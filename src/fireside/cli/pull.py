"""`fireside pull`."""

from __future__ import annotations

from typing import Annotated

import typer


def pull(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A name of the catalog; hf:OWNER/REPO, hf:OWNER/REPO/FILE.gguf or either with @REVISION, from the "
            "Hugging Face hub; or the path of a model on this disk, which is linked and not copied. "
            "Left out: the default model.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the model will be called here.")] = None,
) -> None:
    """Fetch a model, check it, and put it in place."""
    from fireside.cli.fetching import fetch
    from fireside.models.fetching import format_bytes
    from fireside.settings import load_settings

    settings = load_settings()
    found = fetch(model or settings.model, settings, name=name)
    typer.echo(
        f"{found.name}: {found.weight_type}, {format_bytes(found.size_bytes)}, "
        f"{found.config.max_position_embeddings:,} tokens of context, licence {found.license or 'not stated'}"
    )
    typer.echo(found.path)
