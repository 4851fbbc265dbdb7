"""How fast are cleaning, tokenising and loading? Ours and theirs take turns over the same documents, one process each.

    .venv/bin/python -m benchmarks.cleaning TEXT.parquet --tokenizer FOLDER [--peers PYTHON] [--rounds 3]

Beside our blocks: datatrove's of the same names, in the Python that `--peers` names (after `make peers` it is
.peers/cleaning/bin/python). Beside our tokenizer: Hugging Face's `tokenizers` with nothing around it. Figures are
megabytes of UTF-8 per second of processor time, the median of the rounds, so that a busy machine does not decide.
Loading: tokens in packed batches per second of processor time, for pretraining and, of conversations, for fine-tuning,
with what the packing costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import accumulate, takewhile
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.machine import Machine

DATATROVE = """
import json, sys, time
from importlib.metadata import version
from datatrove.data import Document
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter

documents = [Document(text=text, id=str(n)) for n, text in enumerate(json.load(sys.stdin))]
blocks = [FTFYFormatter(), GopherQualityFilter(), FineWebQualityFilter(), GopherRepetitionFilter(), PIIFormatter()]
steps = [block.filter if hasattr(block, "filter") else lambda d, b=block: b.format(d.text) for block in blocks]
for step in steps:
    step(Document(text="What is only made at the first call. " * 30, id="first"))
began = time.process_time()
for document in documents:
    for step in steps:
        step(document)
print(time.process_time() - began, version("datatrove"))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", help="a file, folder or glob of documents")
    parser.add_argument("--tokenizer", required=True, help="a folder with tokenizer.json")
    parser.add_argument("--peers", help="a Python that has datatrove")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=float, default=5)
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"

    import numpy as np
    import tokenizers

    from fireside.data.cleaning.pipeline import build_blocks
    from fireside.data.config import CleaningConfig, SourceConfig
    from fireside.data.documents import Document
    from fireside.data.sources import read_texts
    from fireside.models.text_parts import load_text_parts
    from fireside.settings import load_settings

    texts, size = [], 0
    for text in read_texts((SourceConfig(name="texts", path=arguments.texts),)):
        texts.append(text)
        size += len(text.encode())
        if size >= arguments.megabytes * 1e6:
            break
    documents = [Document(text, str(n), "texts") for n, text in enumerate(texts)]
    blocks = build_blocks(CleaningConfig(), np.empty(0, np.uint64))
    ours = load_text_parts(arguments.tokenizer, load_settings())[0]
    theirs = tokenizers.Tokenizer.from_file(str(Path(arguments.tokenizer) / "tokenizer.json"))

    def clean() -> None:
        for document in documents:
            for block in blocks:  # each block sees each document, as datatrove's do here
                block(document)

    contenders: dict[str, Callable[[], float]] = {
        "cleaning, ours": lambda: processor_time(clean),
        "tokenising, ours": lambda: processor_time(lambda: [ours.encode(text, add_bos=False) for text in texts]),
        "tokenising, tokenizers": lambda: processor_time(
            lambda: [theirs.encode_batch_fast([text], add_special_tokens=False)[0].ids for text in texts]
        ),
    }
    if arguments.peers:
        contenders["cleaning, datatrove"] = lambda: of_datatrove(arguments.peers, texts)
    clean()
    seconds = {name: [] for name in contenders}
    for _ in range(arguments.rounds):
        for name, measure in contenders.items():
            seconds[name].append(measure())
    print(Machine.here())
    print(f"{len(texts):,} documents, {size / 1e6:.1f} MB; tokenizers {tokenizers.__version__}")
    for name, found in sorted(seconds.items()):
        print(f"{name:24} {size / 1e6 / median(found):6.2f} MB/s")
    measure_loading(arguments.texts, arguments.tokenizer, arguments.megabytes * 1e6)


def measure_loading(path: str, tokenizer: str, size: float) -> None:
    """Of rows of 1,024 of the first `size` bytes, as they are prepared by default."""
    from fireside.data.config import DataConfig, PackingConfig, SourceConfig
    from fireside.data.packing import ConversationBatches, PackedBatches, PretrainingBatches
    from fireside.data.prepare import prepare
    from fireside.data.shards import Dataset
    from fireside.data.sources import read_source
    from fireside.models.text_parts import load_text_parts
    from fireside.settings import load_settings

    source = SourceConfig(name="texts", path=path)
    sizes = accumulate(len(repr(item)) for item in read_source(source))
    source = source.model_copy(update={"limit": sum(1 for _ in takewhile(lambda held: held < size, sizes)) + 1})
    own, template = load_text_parts(tokenizer, load_settings())
    with TemporaryDirectory() as folder:
        data = DataConfig(sources=(source,), validation_fraction=0, processes=1)
        manifest = prepare(data, own, Path(folder, "data"), template=template)
        sources = Dataset(Path(folder, "data"), manifest).sources("train")
        kinds: list[type[PackedBatches]] = [
            PretrainingBatches,
            *([ConversationBatches] if sources[0].has_flags else []),
        ]
        for kind in kinds:
            batches = kind(sources, PackingConfig(), rows=8)
            report = batches.report()
            seconds = processor_time(lambda held=batches: [held.next_batch() for _ in range(500)])
            print(
                f"loading, {kind.__name__:19} {500 * 8 * 1024 / seconds / 1e6:6.2f} million tokens/s; "
                f"{report.padding:.2%} padding, {report.dropped:.2%} dropped"
            )


def processor_time(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def of_datatrove(python: str, texts: list[str]) -> float:
    result = subprocess.run(
        [python, "-c", DATATROVE], input=json.dumps(texts), stdout=subprocess.PIPE, text=True, check=False
    )
    if result.returncode:
        sys.exit(f"{python} cannot run datatrove's blocks")
    seconds, _version = result.stdout.split()[-2:]
    return float(seconds)


if __name__ == "__main__":
    main()
