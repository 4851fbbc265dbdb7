"""What is logged of a stage, and the page that shows it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fireside.data.packing import PackingReport
from fireside.training.charts import Curve, number, sparkline, svg_chart
from fireside.training.checkpoint import SavedState
from fireside.training.loop import StepRecord
from fireside.training.memory import MemoryEstimate, memory_in_use
from fireside.training.recipe import Recipe
from fireside.training.recorder import Recorder
from fireside.training.report import write_report
from fireside.training.results import stage_results
from fireside.training.run import Run, create_run
from fireside.training.tracking import Trackers
from tests.training.event_files import told
from tests.training.runs import PLAN
from tests.training.test_run import RECIPE

EVIL = "</dd><script src='https://x'>alert(1)</script> & | `#`"


class Quiet:
    def message(self, text: str) -> None:
        pytest.fail(text)

    def stage(self, name: str, plan: Any, done: int) -> None: ...

    def step(self, record: StepRecord) -> None: ...

    def evaluation(self, step: int, bits_per_byte: float) -> None: ...

    def sample(self, prompt: str, text: str) -> None: ...


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two stages of eight steps, every second of which is logged, with evaluations at others."""
    run = create_run(tmp_path, Recipe.model_validate(RECIPE | {"sft": RECIPE["pretrain"]}))
    run.update(threads=2, device="cpu", devices=3)
    with Trackers(run, pytest.fail) as trackers:
        for stage in ("pretrain", "sft"):
            recorder = Recorder(run, Quiet(), stage, PLAN, torch.device("cpu"), trackers)
            empty = PackingReport(0, 0, dropped=0, dropped_targets=0, padding=0, cuts=0, repeated=0, bare=0)
            recorder.begin(state(0), MemoryEstimate(1, 1, 1, 1), "0" * 64, empty)
            for step in range(1, 9):
                if step % 2 == 0:
                    recorder.on_step(StepRecord(step, 8, 4 / step, 0.1, 1.0, 72 * step, 9e3, 0.5 * step))
                if step in (3, 7):
                    recorder.on_sample("What?" + EVIL, f"Step {step}\n{EVIL}")
                    recorder.on_evaluation(step, 3 / step)
            recorder.on_checkpoint(state(8))
    return run


def state(step: int) -> SavedState:
    return SavedState(step, 72 * step, 0.5 * step, {}, None)


def test_samples_are_of_the_step_that_was_evaluated(run: Run) -> None:
    lines = [line for line in run.log_lines() if line["stage"] == "sft"]
    assert [line["step"] for line in lines if line["kind"] == "sample"] == [3, 7]
    run.forget_after("sft", 6)
    assert [line["step"] for line in run.log_lines() if line["stage"] == "sft"] == [2, 3, 3, 4, 6]


def test_steps_go_on_across_stages(run: Run) -> None:
    found = {tag: [step for step, _ in items] for tag, items in told(run.folder / "tensorboard").items()}
    for key in ("loss", "lr", "grad_norm", "tokens_per_second", "memory"):
        assert found[f"pretrain/{key}"] == [2, 4, 6, 8] and found[f"sft/{key}"] == [10, 12, 14, 16]
    assert found["sft/bits_per_byte"] == found["sft/samples/text_summary"] == [11, 15]
    assert len(found) == 14


def test_memory_is_what_the_system_says(run: Run) -> None:
    before = memory_in_use(torch.device("cpu"))
    kept = torch.ones(8_000_000)
    after = memory_in_use(torch.device("cpu"))
    assert before is not None and after is not None and after - before > 0.9 * kept.nbytes
    assert after == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)
    logged = [line["memory"] for line in run.log_lines() if line["kind"] == "step" and line["stage"] == "sft"]
    assert len(logged) == 4 and run.record["stages"]["sft"]["peak_memory"] == max(logged)


def test_what_a_stage_cost(run: Run) -> None:
    _, sft = stage_results(run)
    assert sft.kwh == pytest.approx(4 * 3 * 2 * 10 / 3.6e6)  # seconds, processes, threads, watts
    run.update(device="cuda:0", devices=2)
    assert stage_results(run)[1].kwh == pytest.approx(4 * 2 * 400 / 3.6e6)
    assert sft.cells()["Steps"] == "8 of 8" and sft.cells()["Tokens/s"] == "144"


def test_the_page_stands_alone_and_shows_texts_as_they_are(run: Run) -> None:
    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags, self.text = set[str](), ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.add(tag)
            assert not {"src", "href", "style"} & dict(attrs).keys()

        def handle_data(self, data: str) -> None:
            self.text += data

    page = write_report(run).read_text()
    reader = Reader()
    reader.feed(page)
    assert "script" not in reader.tags and "link" not in reader.tags and "svg" in reader.tags
    assert reader.text.count("What?" + EVIL) == 2 and f"Step 7\n{EVIL}" in reader.text
    assert page.count("<svg") == 12 and "url(" not in page
    for drawing in re.findall("<svg.*?</svg>", page):
        ElementTree.fromstring(drawing)


def test_markdown_has_the_curves_too(run: Run) -> None:
    write_report(run)
    text = (run.folder / "report.md").read_text()
    assert "| Loss, nats per token | 2 | █▃▂▁ | 0.5 |" in text
    assert "| sft | 8 of 8 | 576 | 0.5000 | 0.4286 | 144 | 0.1 |" in text
    assert f"    step 7:\n    Step 7\n    {EVIL}" in text


NUMBERS = st.floats(-1e12, 1e12, allow_nan=False).map(lambda value: float(f"{value:.6g}"))


@given(st.lists(NUMBERS, min_size=1, max_size=450), st.booleans())
def test_a_curve_stays_within_its_axes(values: list[float], is_from_zero: bool) -> None:
    points = [(float(index + 1), abs(value) if is_from_zero else value) for index, value in enumerate(values)]
    figure = ElementTree.fromstring(svg_chart(points, Curve("<&>", is_from_zero=is_from_zero), end=points[-1][0]))
    line = next(figure.iter("polyline")).attrib["points"].split()
    bands = [corner for band in figure.iter("polygon") for corner in band.attrib["points"].split()]
    assert len(line) <= 200 and bool(bands) is (len(values) > 200)
    heights = [float(path.attrib["d"].split()[1].partition("H")[0]) for path in figure.iter("path")]
    assert 2 <= len(heights) <= 7 and max(heights) == 166 and min(heights) == 10
    for corner in (*line, *bands):
        across, down = map(float, corner.split(","))
        assert 48 <= across <= 386 and 9.9 <= down <= 166.1


@pytest.mark.parametrize(
    ("value", "suffix", "like", "text"),
    [
        (0, "", 0, "0"),
        (1_500_000, "", 0, "1.5M"),
        (0, "B", 4e8, "0 MB"),
        (463.6e6, "B", 0, "463.6 MB"),
        (800, "", 2000, "0.8k"),
        (3e-5, "", 0, "3e-05"),
        (0.1 + 0.2, "", 0, "0.3"),
    ],
)
def test_numbers_in_a_few_letters(value: float, suffix: str, like: float, text: str) -> None:
    assert number(value, suffix, like=like) == text


def test_a_line_of_text() -> None:
    assert sparkline([(float(x), float(x)) for x in range(8)]) == "▁▂▃▄▅▆▇█"
    assert len(sparkline([(float(x), 1.0) for x in range(1000)])) == 32
    assert sparkline([(1.0, 5.0), (2.0, 5.0)], is_from_zero=True) == "██"
