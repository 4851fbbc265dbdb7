"""A run in a page: what it was, what came out, and curves. Markdown, and HTML with drawings of our own."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fireside.errors import RunError
from fireside.training.run import Run

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 220, 64, 24
_CURVES = {
    "loss": "Loss (nats per token)",
    "bits_per_byte": "Held-out bits per byte",
    "tokens_per_second": "Tokens per second",
    "lr": "Learning rate",
    "grad_norm": "Norm of the gradient",
}
_WATTS_PER_CORE = 10  # of a server's processor under load; a guess, and the report says so


def write_report(run: Run) -> Path:
    """Writes `report.md` and `report.html` into the run's folder; returns the latter. Raises `RunError`."""
    record, lines = run.record, list(run.log_lines())
    markdown = _markdown(run, record, lines)
    page = run.folder / "report.html"
    try:
        (run.folder / "report.md").write_text(markdown, encoding="utf-8")
        page.write_text(_html(run, record, lines), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{page} cannot be written: {error.strerror or error}") from error
    return page


def stage_rows(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row per stage: name, steps, tokens, loss, bits per byte, tokens/s, minutes."""
    rows: list[tuple[str, ...]] = []
    for name, stage in record.get("stages", {}).items():
        seconds = stage.get("seconds") or 0
        tokens = stage.get("tokens") or 0
        rows.append(
            (
                name,
                f"{stage.get('step', 0):,} of {stage.get('steps', 0):,}",
                f"{tokens:,}",
                _number(stage.get("loss")),
                _number(stage.get("bits_per_byte")),
                f"{tokens / seconds:,.0f}" if seconds else "",
                f"{seconds / 60:.1f}",
            )
        )
    return rows


def svg_curve(points: Sequence[tuple[float, float]], title: str) -> str:
    """A line through `points` (x ascending) with its axes' ends written on them."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(ys), max(ys)
    x_span, y_span = (xs[-1] - xs[0]) or 1.0, (high - low) or 1.0

    def place(x: float, y: float) -> str:
        across = _LEFT + (x - xs[0]) / x_span * (_WIDTH - _LEFT - 8)
        down = 8 + (high - y) / y_span * (_HEIGHT - _BOTTOM - 16)
        return f"{across:.1f},{down:.1f}"

    floor = _HEIGHT - _BOTTOM
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}"><path class="axis" d="M{_LEFT} 4V{floor}H{_WIDTH - 4}"/>'
        f'<polyline points="{" ".join(place(x, y) for x, y in points)}"/>'
        f'<text x="{_LEFT - 6}" y="14" class="end">{high:.4g}</text>'
        f'<text x="{_LEFT - 6}" y="{floor}" class="end">{low:.4g}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">{xs[0]:,.0f}</text>'
        f'<text x="{_WIDTH - 4}" y="{_HEIGHT - 6}" class="end">{xs[-1]:,.0f} tokens</text></svg></figure>'
    )


def _markdown(run: Run, record: dict[str, Any], lines: list[dict[str, Any]]) -> str:
    header = ("Stage", "Steps", "Tokens", "Loss", "Bits per byte", "Tokens/s", "Minutes")
    table = [header, tuple("---" for _ in header), *stage_rows(record)]
    parts = [
        f"# {run.name}",
        f"{run.status}; begun {record.get('created', 'some time ago')}; model: {record.get('model') or 'none yet'}.",
        "\n".join("| " + " | ".join(row) + " |" for row in table),
        *_facts(record),
    ]
    samples = [line for line in lines if line["kind"] == "sample"]
    if samples:
        last = samples[-1]["step"], samples[-1]["stage"]
        parts.append("## Samples")
        parts += [
            f"> {line['prompt']}**{line['text']}**".replace("\n", "\n> ")
            for line in samples
            if (line["step"], line["stage"]) == last
        ]
    return "\n\n".join(parts) + "\n"


def _facts(record: dict[str, Any]) -> list[str]:
    seconds = sum(stage.get("seconds") or 0 for stage in record.get("stages", {}).values())
    threads = record.get("threads") or 1
    kwh = seconds * threads * _WATTS_PER_CORE / 3.6e6
    machine = record.get("environment", {})
    return [
        "Bits per byte are of documents that were held out. Where their sentences occur in training too, as in "
        "conversations made from templates, they measure memory.",
        f"Cost: {seconds:,.0f} s of training, about {kwh:.3f} kWh ({threads} cores at a guessed {_WATTS_PER_CORE} W).",
        f"Made by Fireside {machine.get('fireside')} ({record.get('git') or 'no git revision'}) with PyTorch "
        f"{machine.get('torch')} on {machine.get('processor')}.",
    ]


def _html(run: Run, record: dict[str, Any], lines: list[dict[str, Any]]) -> str:
    body = [f"<h1>{html.escape(run.name)}</h1>", *(f"<p>{html.escape(fact)}</p>" for fact in _facts(record))]
    for stage in record.get("stages", {}):
        body.append(f"<h2>{html.escape(stage)}</h2>")
        own = [line for line in lines if line["stage"] == stage]
        for key, title in _CURVES.items():
            points = [(float(line["tokens"]), float(line[key])) for line in own if line.get(key) is not None]
            if len(points) > 1:
                body.append(svg_curve(points, title))
        samples = [line for line in own if line["kind"] == "sample"]
        for line in samples:
            text = f"{html.escape(line['prompt'])}<b>{html.escape(line['text'])}</b>"
            body.append(f"<p class=sample><small>step {line['step']}</small><br>{text}</p>")
    style = (
        "body{font:16px/1.5 system-ui;max-width:42rem;margin:2rem auto;padding:0 1rem}figure{margin:1rem 0}"
        "svg{width:100%;font:11px system-ui}polyline{fill:none;stroke:#c2410c;stroke-width:1.5}"
        ".axis{fill:none;stroke:#888}.end{text-anchor:end}.sample{white-space:pre-wrap}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(run.name)}</title>'
        f"<style>{style}</style><body>{''.join(body)}</body></html>\n"
    )


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else ""
