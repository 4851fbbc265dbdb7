"""`fireside chat`."""

from __future__ import annotations

from typing import Annotated

import typer


def chat(
    model: Annotated[str | None, typer.Option(help="The model to talk to: a name or a path.")] = None,
    system: Annotated[str | None, typer.Option(help="What the model should be told first.")] = None,
) -> None:
    """Talk to the model in the terminal. What is piped in is one message, and only the answer is printed."""
    from fireside.cli.chatting import run_chat
    from fireside.settings import load_settings

    run_chat(load_settings(model=model), system)
