"""Formulas on the server's pages: the app's, drawn by the browser, and harmless whatever was written."""

from __future__ import annotations

import json
import time
from html import escape
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fireside.server.documents import markdown, maths
from fireside.server.documents.markdown import to_html
from fireside.server.documents.maths import to_mathml
from fireside.server.documents.page import style
from tests.server.documents.test_markdown import check_harmless, seen

# What the app's own tests are held to as well (web/src/lib/markdown/formulas.spec.ts).
CASES = json.loads(Path(__file__).with_name("formulas.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("text", "formulas"), CASES)
def test_what_is_a_formula(text: str, formulas: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(
        maths, "to_mathml", lambda source, display: found.append(f"display {source}" if display else source)
    )
    to_html(text)
    assert found == formulas


USUAL = [
    r"x^2 + y_1",
    r"\frac{-b \pm \sqrt{b^2 - 4ac}}{2a}",
    r"\sum_{n=1}^{\infty} \frac{1}{n^2} = \frac{\pi^2}{6}",
    r"\int_0^1 f(x)\,\mathrm{d}x",
    r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}",
    r"f(x) = \begin{cases} x^2 & \text{if $x > 0$} \\ 0 & \text{otherwise} \end{cases}",
    r"\begin{aligned} a &= b + c \\[4pt] &= d - e \end{aligned}",
    r"\begin{align} a &= b \\ c &= d \nonumber \end{align}",
    r"\begin{split} a &= b \\ &= c \end{split}",
    r"\begin{gather*} a \\ b \end{gather*}",
    r"\begin{equation} E = mc^2 \tag{1} \label{eq:e} \end{equation}",
    r"\begin{array}{c|c} 1 & 2 \\ \hline 3 & 4 \end{array}",
    r"\begin{alignat}{2} a &= b &\quad c &= d \end{alignat}",
    r"\mathbb{R}^n \to \mathcal{L}(\mathbf{v}, \boldsymbol{\theta})",
    r"\lim_{x \to 0} \frac{\sin x}{x} = 1",
    r"\hat{y} = \operatorname{softmax}(W x + b)",
    r"\operatorname*{arg\,min}_{\theta} \left\lVert y - X\theta \right\rVert_2^2",
    r"\left.\frac{dy}{dx}\right|_{x=0} \binom{n}{k} \overline{AB} \underbrace{a+b}_{n}",
    r"\sum_{i<n} a \implies \boxed{x = 42} \pmod{n}, \bigl( x \bigr)",
    r"\mbox{speed} = 5\,\text{km/h}, 50\%, 90^\circ, \textcolor{red}{x}, \color{blue} y",
]


@pytest.mark.parametrize("source", USUAL)
def test_formulas_that_models_write_are_drawn(source: str) -> None:
    html = to_html(f"$$\n{source}\n$$\n\nIn a line: \\({source}\\).")
    assert html.count("<math") == 2 and "<pre" not in html and "<code" not in html
    assert html.count('<math display="block">') == 1
    assert html.count(f'<annotation encoding="application/x-tex">{escape(source, quote=False)}</annotation>') == 2
    seen_text = html.split("<annotation")[0]
    assert "\\" not in seen_text and "$" not in seen_text and "[4pt]" not in seen_text and " style=" not in html


def drawn(source: str) -> str:
    made = to_mathml(source, display=False)
    assert made
    return made.removeprefix("<math><semantics>").partition("<annotation")[0]


def test_what_is_drawn() -> None:
    row = "<mrow><mi>{}</mi></mrow>".format
    assert drawn(r"\frac ab") == f"<mrow><mfrac>{row('a')}{row('b')}</mfrac></mrow>"
    assert drawn("x'_1") == f"<mrow><msubsup>{row('x')}<mrow><mn>1</mn></mrow><mrow><mo>′</mo></mrow></msubsup></mrow>"
    assert drawn("x^10") == f"<mrow><msup>{row('x')}<mrow><mn>1</mn></mrow></msup><mn>0</mn></mrow>"
    assert drawn(r"\mathbb{R}\mathbf{v}\boldsymbol\theta\mathcal{L}\mathfrak{C}\mathbf{1}") == (
        f"<mrow>{row('ℝ')}{row('𝐯')}{row('𝜽')}{row('ℒ')}{row('ℭ')}<mrow><mn>𝟏</mn></mrow></mrow>"
    )
    assert drawn(r"\mathrm{softmax}") == f"<mrow>{row('softmax')}</mrow>"
    assert "<munderover>" in drawn(r"\sum_1^2 x") and "<msubsup>" in drawn(r"\int_1^2 x")
    assert "<munder>" in drawn(r"\lim_{x} y") and "<munder>" in drawn(r"\int\limits_x")
    assert drawn(r"\not= \notin \not\equiv").count("<mo>") == 3 and "≢" in drawn(r"\not\equiv")
    table = drawn(r"\begin{aligned} a &= b \\[2pt] &= c \\ \end{aligned}")
    assert table.count("<mtr>") == 2 and '<mtd class="right joined"><mi>a</mi></mtd>' in table and "2" not in table
    assert drawn(r"\Gamma\gamma") == '<mrow><mi mathvariant="normal">Γ</mi><mi>γ</mi></mrow>'


@pytest.mark.parametrize(
    "source",
    [
        r"\unknown{x}", r"\frac{1}", "{", "}", r"\begin{matrix} a", "x & y", "\x00", "\x01", "\ud800", "", " ",
        r"\href{javascript:owned}{x}", r"\style{background:url(//evil.example)}{x}", r"\class{a}{x}", r"\cssId{a}{x}",
        r"\includegraphics{//evil.example/x.png}", r"\unicode{x3c}", r"\newcommand{\a}{\a\a}\a", r"\def\a{{{{#1}}}}\a",
        r"\gdef\a{x}\a", r"\let\a=\b \a", r"\renewcommand\alpha{x}", r"\DeclareMathOperator{\a}{b}",
        "x" * (maths.MAX_LENGTH + 1), "x_1_2", "x^1'", r"\left( x", r"\begin{matrix} a \end{pmatrix}",
        r"\begin{x}\end{x}",
        r"\text{a", r"\text{\b}", r"\left x \right x", "%", "#1",
        r"\middle", r"\not", r"\big", r"\sqrt[", "x^",
    ],
)  # fmt: skip
def test_the_rest_stays_what_was_written(source: str) -> None:
    assert to_mathml(source, display=False) is None
    if source.strip() and "\ud800" not in source and "\x00" not in source:
        assert f'<pre class="math" tabindex="0" dir="ltr">$${escape(source, quote=False)}$$</pre>' in to_html(
            f"$${source}$$"
        )


ATTACKS = [
    "<script>owned</script>",
    "&lt;script&gt;owned&lt;/script&gt;",
    r"\text{<script>owned</script>}",
    r"\text{<img src=x onerror=owned>}",
    r"\text{</mtext></math><img src=x onerror=owned>}",
    r"\mathrm{</annotation></semantics><svg onload=owned>}",
    r"</annotation><script>owned</script>",
    r"<annotation-xml encoding='text/html'><style><img src=x onerror=owned>",
    r"\operatorname{<b onload=owned>}",
    r"\text{<!--}<style>-->",
    r"\text{<![CDATA[}<script>owned</script>]]>",
    r"\text{<!DOCTYPE x [<!ENTITY a 'b'>]>}&a;",
    r"\text{<?xml version='1.0'?>}",
    r"\begin{align}x\tag{<img src=x onerror=owned>}\end{align}",
    r'\color{"onload="owned}x',
    r"\textcolor{red;background:url(//evil.example)}{x}",
    r'\hspace{1em"onload="owned}x',
    r'\begin{array}{c"onload="owned}x\end{array}',
    r"\href{https://evil.example}{x}",
    r"\label{app}x",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_text(attack: str) -> None:
    for text in (f"${attack}$", f"$${attack}$$", f"\\({attack}\\)", f"\\[\n{attack}\n\\]", f"| ${attack}$ |\n|---|"):
        html = to_html(text)
        check_harmless(html)
        for tag, attributes in seen(html):
            assert tag not in ("img", "svg", "a", "annotation-xml", "mglyph", "maction")
            assert not {"href", "src", "xlink:href", "actiontype", "style", "id"} & set(attributes)


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_text_before_anything_is_sanitised(attack: str) -> None:
    made = to_mathml(attack, display=True) or "<math></math>"
    for node in ElementTree.fromstring(made).iter():  # which raises for what is not escaped
        assert node.tag in maths.ELEMENTS and set(node.attrib) <= maths.ATTRIBUTES


PIECES = (
    r"\text{ \frac \sqrt[ \left( \right) \begin{matrix} \end{matrix} \color{red} \not \hat \tag{ { } ^ _ & \\ $ ' x "
    r"1 < > \" <script> <img </mtext> &lt; \mathrm{ \operatorname{ [ ] \limits \mathbf \sum"
)


@given(st.lists(st.sampled_from(PIECES.split()), max_size=30).map(" ".join))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_whatever_is_written_is_harmless(source: str) -> None:
    made = to_mathml(source, display=True)
    if made is not None:
        assert {node.tag for node in ElementTree.fromstring(made).iter()} <= maths.ELEMENTS
    check_harmless(to_html(f"$${source}$$ and ${source}$"))


def repeated(*piece: str, length: int = maths.MAX_LENGTH) -> str:
    opening, closing = (*piece, "")[:2]
    count = length // len(opening + closing)
    return opening * count + "x" + closing * count


@pytest.mark.parametrize(
    "source",
    [
        repeated("{", "}", length=100_000), repeated("{", "}"), repeated("{"), repeated("x^{", "}"), repeated(r"\hat "),
        repeated(r"\Bbb"), repeated(r"\frac x"), repeated(r"\sqrt["), repeated(r"\sqrt{", "}"), repeated(r"\bf "),
        repeated(r"\left(", r"\right)"), repeated(r"\begin{matrix}", r"\end{matrix}"), repeated(r"\color{red}"),
        repeated(r"\text{"), repeated(r"\text{$", "$}"), repeated(r"\substack{"), repeated("&"), repeated(r"\\"),
        repeated(r"x_a^b "), repeated("'"), repeated("1"), repeated(r"\tag{"), repeated(r"\label{"), repeated("^"),
        r"\begin{matrix}" + "&" * 2_000 + r"\\" * 900 + r"\end{matrix}", r"\text{" + "{}" * 1_900,
        r"\begin{array}{" + "c|" * 1_900 + "}x" + r"\end{array}", r"\text{" + "$" * 3_900 + "}", "\\text" * 700 + "{",
    ],
)  # fmt: skip
def test_catastrophes_end_quickly(source: str) -> None:
    began = time.process_time()
    made = to_mathml(source, display=True)
    assert time.process_time() - began < 0.1
    assert made is None or len(made) < 45 * len(source)


def test_what_it_may_write_is_what_is_let_through() -> None:
    for source in USUAL:
        for node in ElementTree.fromstring(to_mathml(source, display=True) or "").iter():
            assert node.tag in maths.ELEMENTS and set(node.attrib) <= maths.ATTRIBUTES
            assert all(f".{name}" in style() for name in node.get("class", "").split())
    made = to_html(f"$${USUAL[6]}$$")
    assert (to_mathml(USUAL[6], display=True) or "") in made  # sanitising takes nothing away


def test_a_text_of_nothing_but_formulas_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "_MOST_DRAWN", 1_000)
    html = to_html("$x$ " * 100)
    assert 5 < html.count("<math") < 15 and html.count("<math") + html.count("<code") == 100
    assert to_html("$x$").count("<math") == 1


def test_only_formulas_as_long_as_a_phone_is_wide_scroll_by_themselves() -> None:
    assert "<span" not in to_html(r"$\hat{\theta} = \operatorname*{arg\,min}_{\theta} \lVert y - X\theta \rVert_2^2$")
    assert to_html(f"${'a + ' * 20} b$").startswith('<p><span class="math" tabindex="0"><math>')
