"""A run in a page: what it was, what came out, curves, and samples over time. Markdown, and HTML that stands alone."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fireside.errors import RunError
from fireside.training.charts import Curve, Points, number, sparkline, svg_chart
from fireside.training.results import HEADINGS, cost, indent_code, stage_results
from fireside.training.run import Run

_CURVES = {
    "loss": Curve("Loss", "nats per token"),
    "bits_per_byte": Curve("Bits per byte", "held out"),
    "lr": Curve("Learning rate", is_from_zero=True),
    "grad_norm": Curve("Norm of the gradient", is_from_zero=True),
    "tokens_per_second": Curve("Speed", "tokens per second", is_from_zero=True),
    "memory": Curve("Memory in use", suffix="B", is_from_zero=True),
}
_HELD_OUT = (
    "Bits per byte are of documents that were held out. Where their sentences occur in training too, as in "
    "conversations made from templates, they measure what was learnt by heart."
)
_STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--soft:#656d76;--rule:#e6e3de;--page:#fdfcfa;--card:#fff;--line:#c2410c}
@media(prefers-color-scheme:dark){:root{--ink:#e8e6e3;--soft:#9a9690;--rule:#33312e;--page:#191817;--card:#211f1d;
--line:#fb923c}}
*{box-sizing:border-box}
body{font:16px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:62rem;margin:0 auto;
padding:2.5rem 1.25rem 4rem;overflow-wrap:break-word}
h1{font-size:1.75rem;line-height:1.2;margin:0}h2{font-size:1.25rem;margin:3rem 0 1rem}
p{margin:.5rem 0}.soft,figcaption span,th,dt,small{color:var(--soft)}
.wide{overflow-x:auto;margin:1.5rem 0}table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
th{font-weight:400;font-size:.85rem}th,td{text-align:right;padding:.4rem 0 .4rem 1.25rem;white-space:nowrap;
border-bottom:1px solid var(--rule)}th:first-child,td:first-child{text-align:left;padding-left:0}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1rem}
figure,.sample{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:.6rem;padding:.75rem .9rem}
figcaption{display:flex;gap:.4rem;align-items:baseline;font-size:.9rem}figcaption b{font-weight:600}
output{margin-left:auto;font-variant-numeric:tabular-nums}
svg{display:block;width:100%;margin-top:.4rem;font:11px system-ui,sans-serif;fill:var(--soft)}
.grid{stroke:var(--rule)}polyline{fill:none;stroke:var(--line);stroke-width:1.75;stroke-linejoin:round}
polygon{fill:var(--line);opacity:.18}circle{fill:var(--line)}.end{text-anchor:end}.middle{text-anchor:middle}
.sample{margin:.75rem 0}dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem;margin:.5rem 0 0}
dt{text-align:right;font-size:.85rem;line-height:1.85;font-variant-numeric:tabular-nums}dd{margin:0}
dd,.prompt,pre{white-space:pre-wrap;overflow-wrap:anywhere}
.prompt{font-weight:600}details{margin:1rem 0}summary{cursor:pointer}pre{font-size:.8rem;line-height:1.45}
"""


def write_report(run: Run) -> Path:
    """Writes `report.md` and `report.html` into the run's folder; returns the latter. Raises `RunError`."""
    lines = list(run.log_lines())
    page = run.folder / "report.html"
    try:
        (run.folder / "report.md").write_text(_markdown(run, lines), encoding="utf-8")
        page.write_text(_html(run, lines), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{page} cannot be written: {error.strerror or error}") from error
    return page


def _markdown(run: Run, lines: list[dict[str, Any]]) -> str:
    header = ("Stage", *HEADINGS)
    rows = [(result.stage, *result.cells().values()) for result in stage_results(run)]
    parts = [f"# {run.name}", _state(run), _table([header, *rows]), f"Cost: {cost(run)}.", _HELD_OUT, _made(run)]
    for stage in run.record["stages"]:
        own = [line for line in lines if line["stage"] == stage]
        parts.append(f"## {stage}")
        curves = [("", "First", "", "Last")]
        for curve, points in _curves(own):
            drawn = sparkline(points, is_from_zero=curve.is_from_zero)
            title = f"{curve.title}, {curve.unit}" if curve.unit else curve.title
            curves.append((title, number(points[0][1], curve.suffix), drawn, number(points[-1][1], curve.suffix)))
        if len(curves) > 1:
            parts.append(_table(curves))
        for prompt, samples in _samples(own).items():
            parts.append(f"### {' '.join(prompt.split())}")
            # Indented code, for a model may write whatever formats a page.
            texts = [f"step {step}:\n{text}" for step, text in samples]
            parts.append("\n\n".join(indent_code(text) for text in texts))
    return "\n\n".join(parts) + "\n"


def _html(run: Run, lines: list[dict[str, Any]]) -> str:
    def cells(kind: str, row: Iterable[str]) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in row) + "</tr>"

    rows = [cells("td", (result.stage, *result.cells().values())) for result in stage_results(run)]
    body = [
        f'<header><h1>{html.escape(run.name)}</h1><p class="soft">{html.escape(_state(run))}</p></header>',
        f'<div class="wide"><table>{cells("th", ("Stage", *HEADINGS))}{"".join(rows)}</table></div>',
        f'<p>Cost: {html.escape(cost(run))}.</p><p class="soft">{_HELD_OUT}</p>',
    ]
    for stage in run.record["stages"]:
        own = [line for line in lines if line["stage"] == stage]
        end = max((line["tokens"] for line in own if "tokens" in line), default=1)
        charts = [svg_chart(points, curve, end=end) for curve, points in _curves(own)]
        body.append(f"<h2>{html.escape(stage)}</h2>")
        if charts:
            body.append(f'<div class="charts">{"".join(charts)}</div><p class="soft">Along the lower side: tokens.</p>')
        for prompt, samples in _samples(own).items():
            texts = "".join(f"<dt>step {step:,}</dt><dd>{html.escape(text)}</dd>" for step, text in samples)
            body.append(f'<div class="sample"><div class="prompt">{html.escape(prompt)}</div><dl>{texts}</dl></div>')
    recipe = html.escape(json.dumps(run.recipe.model_dump(mode="json"), indent=2, ensure_ascii=False))
    record = html.escape(json.dumps(run.record, indent=2, ensure_ascii=False))
    body.append(
        f"<h2>How it was made</h2><p>{html.escape(_made(run))}</p>"
        f"<details><summary>Recipe</summary><pre>{recipe}</pre></details>"
        f"<details><summary>Record: environment, hashes, plans</summary><pre>{record}</pre></details>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{html.escape(run.name)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _curves(lines: list[dict[str, Any]]) -> list[tuple[Curve, Points]]:
    """Those of which there is more than a point. lines: of one stage."""
    found = [
        (curve, [(float(line["tokens"]), float(line[key])) for line in lines if line.get(key) is not None])
        for key, curve in _CURVES.items()
    ]
    return [(curve, points) for curve, points in found if len(points) > 1]


def _samples(lines: list[dict[str, Any]]) -> dict[str, list[tuple[int, str]]]:
    """Steps and texts by prompt."""
    found: dict[str, list[tuple[int, str]]] = {}
    for line in lines:
        if line["kind"] == "sample":
            found.setdefault(line["prompt"], []).append((line["step"], line["text"].strip()))
    return found


def _state(run: Run) -> str:
    record = run.record
    begun = str(record.get("created", "some time ago")).replace("T", " ").replace("+00:00", " UTC")
    return f"{run.status} · begun {begun} · model: {record.get('model') or 'none yet'}"


def _made(run: Run) -> str:
    record: Mapping[str, Any] = run.record
    machine = record.get("environment", {})
    return (
        f"Made by Fireside {machine.get('fireside')} ({record.get('git') or 'no git revision'}) with PyTorch "
        f"{machine.get('torch')} on {machine.get('processor')}."
    )


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    first, *others = rows
    lines = [first, tuple("---" for _ in first), *others]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)
