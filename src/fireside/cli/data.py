"""`fireside data`: make datasets, and the classifiers that choose for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fireside.cli.training_extra import needs_training

if TYPE_CHECKING:
    from fireside.data.config import DataConfig
    from fireside.data.manifest import Manifest

app = typer.Typer(help="Prepare datasets for training.", no_args_is_help=True)


@app.command()
def prepare(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A TOML file: sources, cleaning, validation.")],
    out: Annotated[Path, typer.Option(help="Folder of the dataset.")],
    tokenizer: Annotated[str, typer.Option(help="A folder with tokenizer.json, or a model.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Read, clean, tokenise and divide data into a dataset."""
    needs_training()
    from fireside.cli.progress import Status, time_left
    from fireside.data.prepare import Progress
    from fireside.data.prepare import prepare as prepare_dataset
    from fireside.models.text_parts import load_text_parts
    from fireside.settings import load_settings

    wanted = _read_config(config)
    own, template = load_text_parts(tokenizer, load_settings())
    with Status() as status:

        def show(progress: Progress) -> None:
            rate = progress.bytes / 1e6 / status.seconds
            status.say(
                f"{progress.source}: {progress.documents:,} documents, {progress.kept:,} kept, "
                f"{progress.tokens / 1e6:,.1f}M tokens, {rate:.1f} MB/s{time_left(progress.share, status.seconds)}"
            )

        try:
            manifest = prepare_dataset(wanted, own, out, template=template, on_progress=show)
        except KeyboardInterrupt:
            status.say("")
            typer.echo("Stopped; nothing was left behind, and the same command begins anew.", err=True)
            raise typer.Exit(130) from None
    typer.echo(manifest.to_json() if as_json else _described(manifest, out))


@app.command()
def train_classifier(
    good: Annotated[str, typer.Argument(help="Text that is wanted: a file, folder or glob.")],
    bad: Annotated[str, typer.Argument(help="Text that is not.")],
    out: Annotated[Path, typer.Option(help="The classifier's safetensors file.")],
) -> None:
    """Train a quality classifier on two small folders."""
    needs_training()
    from fireside.data.cleaning.classifier import train_classifier
    from fireside.data.config import SourceConfig
    from fireside.data.sources import read_texts

    texts = [read_texts((SourceConfig(name="texts", path=path),)) for path in (good, bad)]
    classifier, accuracy = train_classifier(*texts)
    classifier.save(out)
    typer.echo(f"{out}: right about {accuracy:.0%} of the tenth it was not trained on")


def _read_config(path: Path) -> DataConfig:
    import tomllib

    from pydantic import ValidationError

    from fireside.data.config import DataConfig, anchor_paths
    from fireside.data.documents import DataError

    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        anchor_paths(raw, path.absolute().parent)
        return DataConfig.model_validate(raw)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _described(manifest: Manifest, folder: Path) -> str:
    lines = [str(folder)]
    for source in manifest.sources:
        lines.append(f"  {source.name} ({source.kind}, licence {source.licence}): {source.read:,} read")
        for name, part in (("train", source.train), ("validation", source.validation)):
            if part.documents:
                lines.append(f"    {name}: {part.documents:,} documents, {part.tokens:,} tokens")
        lost = {**source.dropped, **source.malformed}
        lines += [f"    dropped, {reason}: {count:,}" for reason, count in lost.items()]
        lines += [f"    {reason}: {count:,}" for reason, count in source.changed.items()]
        lines += [f"    for example {example}" for example in source.examples[:1]]
    if manifest.forgotten:
        lines.append(f"  {manifest.forgotten:,} hashes were forgotten: deduplication would have needed more memory_mb")
    return "\n".join(lines)
