"""A template is somebody else's program: it reaches nothing and ends soon."""

from __future__ import annotations

import pytest

from fireside.tokenizers import chat_environment
from fireside.tokenizers.chat_template import ChatTemplate, TemplateError


def render(source: str) -> str:
    messages = [{"role": "user", "content": "<é & 'x'>"}]
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>").render(messages)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(999999999) %}{% endfor %}",
        "{% for a in range(9999) | map('string') %}{% for b in range(9999) | select %}{% endfor %}{% endfor %}",
        "{{ 'a' * 9999999999 }}",
        "{{ 9999999999 * [1] }}",
        "{% set ns = namespace(s='aaaa') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s='aaaa') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set s = 'a' * 1000000 %}{% for i in range(99) %}{{ s }}{% endfor %}",
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "{% macro m(s) %}{{ s }}{{ s }}{% endmacro %}{% set ns = namespace(s='a') %}"
        "{% for i in range(99) %}{% set ns.s = m(ns.s) %}{% endfor %}",
        "{{ 9 ** 9 ** 9 ** 9 }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '%*d' % (9999999999, 1) }}",
        "{{ 'a'.ljust(9999999999) }}",
    ],
)
def test_bounds(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_environment, "MAX_STEPS", 100_000)
    with pytest.raises(TemplateError):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({}) }}",
        "{{ raise_exception.__globals__.keys() }}",
        "{{ namespace(__class__=1) }}",
        "{% set ns = namespace() %}{% set ns._Namespace__attrs = 1 %}",
        "{{ '{0.__class__.__mro__}'.format(1) }}",
        "{{ dict.__subclasses__() }}",
        "{% include 'x' %}",
        "{{ lipsum() }}",
    ],
)
def test_the_sandbox_holds(source: str) -> None:
    with pytest.raises(TemplateError):
        render(source)


@pytest.mark.parametrize("source", ["{{ raise_exception.__globals__ }}", "{{ '{0.__class__}'.format(1) }}"])
def test_what_is_hidden_is_undefined(source: str) -> None:
    assert render(source) == ""


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages | tojson }}", """[{"role": "user", "content": "<é & 'x'>"}]"""),
        ("{{ {'b': 1, 'a': [2]} | tojson(separators=(',', ':'), sort_keys=true) }}", '{"a":[2],"b":1}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("  {% if true %}\n  a\n  {% endif %}\nb", "  a\nb"),
        ("{% for i in [0, 1, 2] %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "02"),
        ("{% for i in [0, 1, 2] %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% endfor %}", "0"),
        ("{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}", "1"),
        ("{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "3"),
        ("{% for i in [1, 2] | map('string') %}{{ loop.last }}{{ loop.length }}{% endfor %}", "False2True2"),
        ("{{ 1 ~ '!' ~ none }}", "1!None"),
        ("{{ dict(a=1) }}{{ '%s-%05.1f' % ('a', 1.25) }}{{ 2 ** 10 }}{{ 7 % 4 }}", "{'a': 1}a-001.210243"),
        ("{{ bos_token }}{{ eos_token }}{{ strftime_now('%Y') | length }}{{ nothing is defined }}", "<s></s>4False"),
        ("{{ messages[0].content.split('&') | length }}{{ messages[0]['content'][1:] }}", "2é & 'x'>"),
    ],
)  # fmt: skip
def test_conventions(source: str, text: str) -> None:
    assert render(source) == text
