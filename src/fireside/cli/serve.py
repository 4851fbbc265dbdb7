"""`fireside serve`."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind to; 0.0.0.0 lets other machines in.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind to; 0 takes any free one.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to serve: a name or a path.")] = None,
) -> None:
    """Serve the model: the page, and OpenAI's API below /v1. The default model is fetched first if it is missing."""
    from fireside.cli.serving import run_server
    from fireside.settings import load_settings

    run_server(load_settings(host=host, port=port, model=model))
