"""`fireside`: one command per verb. The verbs import what they need when they run, so that `--help` is quick."""

from __future__ import annotations

import sys

import typer

from fireside.cli import admin, chat, data, finetune, models, pull, runs, serve, tokenizer, train, version
from fireside.errors import FiresideError

app = typer.Typer(
    name="fireside",
    help="A ChatGPT that you own: the model, the engine, the API and the app.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve.serve)
app.command()(chat.chat)
app.command()(pull.pull)
app.command()(models.models)
app.command()(train.train)
app.command()(finetune.finetune)
app.command()(runs.runs)
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(data.app, name="data")
app.add_typer(admin.app, name="admin")
app.command()(version.version)


def main() -> None:
    """The console script. What a person can act on is one sentence on stderr; a traceback is a bug of ours."""
    try:
        app()
    except FiresideError as error:
        print(f"fireside: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
