"""`fireside tokenizer`: train a vocabulary, and look at one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fireside.cli.training_extra import needs_training

if TYPE_CHECKING:
    from fireside.data.config import SourceConfig
    from fireside.settings import Settings
    from fireside.tokenizers.tokenizer import Tokenizer

app = typer.Typer(help="Train a tokenizer, or look at one.", no_args_is_help=True)

Texts = Annotated[
    list[str], typer.Argument(metavar="TEXT...", help="Files, folders or globs of text, JSONL or Parquet.")
]


@app.command()
def train(
    texts: Texts,
    out: Annotated[Path, typer.Option(help="Folder for tokenizer.json and tokenizer_config.json.")],
    vocab_size: Annotated[int, typer.Option(help="Tokens in all.")] = 4096,
    text_field: Annotated[str, typer.Option(help="The column or key that holds a document's text.")] = "text",
) -> None:
    """Train a byte-level BPE tokenizer with chat tokens and template."""
    needs_training()
    from fireside.cli.progress import Status
    from fireside.data.config import CleaningConfig, DataConfig, TokenizerConfig
    from fireside.data.training_texts import training_texts
    from fireside.tokenizers.training import train_tokenizer, write_files

    config = TokenizerConfig(vocab_size=vocab_size)
    cleaning = CleaningConfig(quality=None, repetition=None, pii=False, deduplication=None)  # Unicode is repaired
    data = DataConfig(sources=_sources(texts, text_field), cleaning=cleaning, validation_fraction=0)
    with Status() as status:
        files = train_tokenizer(
            training_texts([data]),
            config,
            on_progress=lambda read: status.say(f"{read / 1e6:,.1f} MB of text read"),
        )
    write_files(files, out)
    typer.echo(f"{out}: {vocab_size:,} tokens; fireside tokenizer inspect {out} shows how it compresses text")


@app.command()
def inspect(
    tokenizer: Annotated[str, typer.Argument(metavar="TOKENIZER", help="A folder with tokenizer.json, or a model.")],
    text: Annotated[
        list[str] | None, typer.Option(help="Text to compress beside the samples; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Bytes per token by language and script, beside GPT-2 and the default model where these are on disk."""
    if text:
        needs_training()
    from fireside.data.sources import read_texts
    from fireside.models.text_parts import load_text_parts
    from fireside.settings import load_settings
    from fireside.tokenizers.compression import SAMPLES, bytes_per_token, script_of

    settings = load_settings()
    own, template = load_text_parts(tokenizer, settings)
    vocabularies = {tokenizer: own, **_others(settings, tokenizer)}
    texts = {f"{name} ({script_of(sample)})": [sample] for name, sample in SAMPLES.items()}
    for path in text or ():
        texts[path] = list(read_texts(_sources([path], "text")))
    table = {
        name: {title: bytes_per_token(vocabulary, samples) for title, vocabulary in vocabularies.items()}
        for name, samples in texts.items()
    }
    if as_json:
        sizes = {title: vocabulary.vocab_size for title, vocabulary in vocabularies.items()}
        typer.echo(json.dumps({"vocab_size": sizes, "bytes_per_token": table}, indent=2, ensure_ascii=False))
        return
    special = [token for token, is_special in own.added_tokens.items() if is_special]
    typer.echo(f"{own.vocab_size:,} tokens; control tokens: {' '.join(special) or 'none'}")
    typer.echo(f"chat template: {'yes' if template else 'none'}\n\nBytes per token:")
    _print_table(table)


def _sources(paths: list[str], text_field: str) -> tuple[SourceConfig, ...]:
    from fireside.data.config import SourceConfig

    return tuple(SourceConfig(name=f"text-{n}", path=path, text_field=text_field) for n, path in enumerate(paths))


def _others(settings: Settings, own: str) -> dict[str, Tokenizer]:
    """Vocabularies to compare with, of those that are on this disk."""
    from huggingface_hub import try_to_load_from_cache

    from fireside.errors import ModelError
    from fireside.models.text_parts import load_text_parts
    from fireside.tokenizers.tokenizer import Tokenizer

    found = {}
    for repository in ("gpt2", "openai-community/gpt2"):
        path = try_to_load_from_cache(repository, "tokenizer.json")
        if isinstance(path, str):
            found["gpt2"] = Tokenizer.from_file(Path(path))
    if own != settings.model:
        with suppress(ModelError):  # it is not here, and not to be fetched for a comparison
            found[settings.model] = load_text_parts(settings.model, settings)[0]
    return found


def _print_table(table: Mapping[str, Mapping[str, float]]) -> None:
    titles = list(next(iter(table.values())))
    width = max(map(len, table))
    typer.echo(" " * width + "".join(f"  {title:>10}" for title in titles))
    for name, row in table.items():
        typer.echo(f"{name:{width}}" + "".join(f"  {row[title]:{max(10, len(title))}.2f}" for title in titles))
