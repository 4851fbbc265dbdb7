"""LaTeX's formulas as MathML Core (https://www.w3.org/TR/mathml-core/), which browsers lay out without script.

The part of LaTeX that chats are full of. What is not known, too long or too deep stays what was written. Each token is
read once and becomes elements that are named here, around escaped text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from html import escape

from fireside.server.documents import symbols

MAX_LENGTH = 4_000  # characters of one formula
_MAX_DEPTH = 60  # of arguments, groups and rows within each other

ELEMENTS = {
    "annotation", "math", "menclose", "mfrac", "mi", "mn", "mo", "mover", "mroot", "mrow", "mspace", "msqrt", "msub",
    "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover", "semantics",
}  # fmt: skip
ATTRIBUTES = {
    "accent", "class", "display", "displaystyle", "encoding", "linethickness", "mathvariant", "maxsize", "minsize",
    "movablelimits", "notation", "stretchy", "symmetric", "width",
}  # fmt: skip

_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|\d+(?:\.\d+)?|\s+|%[^\n]*|.", re.DOTALL)
_LENGTH = re.compile(r"\s*\[\s*-?[\d.]+\s*[a-z]{2}\s*\]")  # of the space behind a row
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_END = ""  # of the pieces


class _NotKnownError(Exception):
    """It stays what was written."""


def to_mathml(source: str, *, display: bool) -> str | None:
    """With the LaTeX as its annotation; None for what is too long, too deep, or not understood."""
    if not source.strip() or len(source) > MAX_LENGTH or _UNPRINTABLE.search(source):
        return None
    try:
        inside = _Reader(source).until(_END)
    except _NotKnownError:
        return None
    if not inside:
        return None
    kind = ' display="block"' if display else ""
    return (
        f"<math{kind}><semantics><mrow>{inside}</mrow>"
        f'<annotation encoding="application/x-tex">{escape(source, quote=False)}</annotation></semantics></math>'
    )


def _element(name: str, inside: str, **attributes: str) -> str:
    said = "".join(f' {key}="{value}"' for key, value in attributes.items() if value)
    return f"<{name}{said}>{inside}</{name}>"


def _operator(text: str, **attributes: str) -> str:
    return _element("mo", escape(text, quote=False), **attributes) if text else ""


def _fenced(opening: str, inside: str, closing: str) -> str:
    return f"<mrow>{_operator(opening, stretchy='true')}{inside}{_operator(closing, stretchy='true')}</mrow>"


class _Reader:
    """Reads tokens from left to right; each method gives what it has read as MathML."""

    def __init__(self, source: str, depth: int = 0) -> None:
        self._tokens: list[str] = [*(piece for piece in _TOKEN.findall(source) if piece[0] != "%"), _END]
        self._place, self._depth, self._font = 0, depth, ""

    def until(self, *ends: str) -> str:
        """A row up to one of `ends`, which is left."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _NotKnownError
        made = ""
        while self._peek() not in ends:
            made += self._scripted()
        self._depth -= 1
        return made

    def _peek(self) -> str:
        while self._tokens[self._place].isspace():
            self._place += 1
        return self._tokens[self._place]

    def _takes(self, piece: str) -> bool:
        taken = self._peek() == piece
        self._place += taken
        return taken

    def _needs(self, piece: str) -> None:
        if not self._takes(piece):
            raise _NotKnownError

    def _argument(self, font: str | None = None) -> str:
        piece = self._peek()
        if len(piece) > 1 and piece.isdecimal():  # x^10 is x^{1}0
            self._tokens[self._place : self._place + 1] = [piece[0], piece[1:]]
        before, self._font = self._font, self._font if font is None else font
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _NotKnownError
        made = self._atom()
        self._depth -= 1
        self._font = before
        return made if piece == "{" else f"<mrow>{made}</mrow>"

    def _optional(self) -> str:
        if not self._takes("["):
            return ""
        made = self.until("]", _END)
        self._needs("]")
        return f"<mrow>{made}</mrow>"

    def _word(self) -> str:
        """An argument that is no formula."""
        self._needs("{")
        depth, start = 1, self._place
        while depth and (piece := self._tokens[self._place]) != _END:
            self._place += 1
            depth += (piece == "{") - (piece == "}")
        if depth:
            raise _NotKnownError
        return "".join(self._tokens[start : self._place - 1])

    def _scripted(self) -> str:
        piece = self._peek()
        name = piece[1:]
        base = "" if piece in ("^", "_", "'") else self._atom()
        limits = piece[0] == "\\" and (name in symbols.LIMITS or symbols.character(name) in symbols.BIG)
        limits = limits or base.startswith("<mo movablelimits")
        scripts: dict[str, str] = {}
        while (mark := self._peek()) in ("^", "_", "'", "\\limits", "\\nolimits"):
            self._place += 1
            if mark == "'" and "^" not in scripts:
                primes = 1
                while self._takes("'"):
                    primes += 1
                rest = self._argument() if self._takes("^") else ""
                scripts["^"] = f"<mrow>{_operator('′' * primes)}{rest}</mrow>"
            elif mark in ("^", "_") and mark not in scripts:
                scripts[mark] = self._argument()
            elif mark[0] == "\\":
                limits = mark == "\\limits"
            else:
                raise _NotKnownError
        if scripts:
            kinds = ("munder", "mover", "munderover") if limits else ("msub", "msup", "msubsup")
            kind = kinds[2 if len(scripts) == 2 else "^" in scripts]
            base = _element(kind, f"<mrow>{base}</mrow>{scripts.get('_', '')}{scripts.get('^', '')}")
        is_name = piece[0] == "\\" and (name in symbols.FUNCTIONS or name == "operatorname")
        return (
            base + _element("mspace", "", width="0.1667em") if is_name and self._peek() not in symbols.CLOSE else base
        )

    def _atom(self) -> str:
        piece = self._peek()
        self._place += 1
        if piece == "{":
            made = self.until("}", _END)
            self._needs("}")
            return f"<mrow>{made}</mrow>"
        if piece in (_END, "}", "^", "_", "&", "$", "#", "'"):
            raise _NotKnownError
        if piece[0] == "\\":
            return self._command(piece[1:])
        if piece[0].isdecimal():
            return _element("mn", "".join(symbols.styled(digit, self._font) for digit in piece))
        if piece.isalpha():
            return self._letter(piece)
        return _operator(symbols.PLAIN.get(piece, piece), stretchy="false" if piece in "()[]|/" else "")

    def _letter(self, letter: str) -> str:
        while self._font == "normal" and self._tokens[self._place].isalpha():  # a name: \mathrm{softmax}
            letter += self._tokens[self._place]
            self._place += 1
        is_upright = len(letter) == 1 and (self._font == "normal" or (not self._font and "Α" <= letter <= "Ω"))
        return _element("mi", symbols.styled(letter, self._font), mathvariant="normal" if is_upright else "")

    def _command(self, name: str) -> str:
        if name in symbols.NOTHING:
            return ""
        if name in symbols.SPACES:
            return _element("mspace", "", width=symbols.SPACES[name])
        if name in symbols.FONTS:
            return self._argument(symbols.FONTS[name])
        if name in symbols.FUNCTIONS:
            word = symbols.FUNCTIONS[name]
            return _element("mo", word, movablelimits="true") if name in symbols.LIMITS else _element("mi", word)
        if name in symbols.ACCENTS:
            mark = _operator(symbols.ACCENTS[name], stretchy="false" if name in symbols.NARROW else "true")
            return _element("munder" if "under" in name else "mover", self._argument() + mark, accent="true")
        if name in symbols.SIZES:
            size = symbols.SIZES[name]
            return _operator(self._delimiter(), stretchy="true", symmetric="true", minsize=size, maxsize=size)
        if name in symbols.TEXTS:
            return self._text(**{"class": symbols.TEXTS[name]})
        if name in symbols.COMMANDS:
            method: Callable[[str], str] = getattr(self, symbols.COMMANDS[name])
            return method(name)
        character = symbols.character(name)
        if character is None:
            raise _NotKnownError
        if unicodedata.category(character)[0] == "L" or character in symbols.LETTERS:
            return self._letter(character)
        return _operator(character, stretchy="false" if character in symbols.BRACKETS else "")

    def _text(self, **attributes: str) -> str:
        """Formulas may stand in it, between dollars."""
        made = ""
        for place, part in enumerate(re.split(r"(?<!\\)\$([^$]*)\$", self._word())):
            if place % 2:
                made += _Reader(part, self._depth).until(_END)
            elif re.search(r"(?<!\\)[{}^_$]|\\[^%$#&_{} ]", part):
                raise _NotKnownError
            else:
                words = re.sub(r"\s+", "\u00a0", re.sub(r"\\(.)", r"\1", part))
                made += _element("mtext", escape(words, quote=False), **attributes) if words else ""
        return made

    def _delimiter(self) -> str:
        piece = self._peek()
        self._place += 1
        character = symbols.character(piece[1:]) if piece[:1] == "\\" else piece
        if not character or character not in symbols.BRACKETS + "./<>":
            raise _NotKnownError
        return "" if character == "." else symbols.ANGLES.get(character, character)

    def _fraction(self, name: str) -> str:
        style = {"d": "true", "c": "true", "t": "false"}.get(name[0], "")
        thickness = "0" if "binom" in name else ""
        made = _element("mfrac", self._argument() + self._argument(), displaystyle=style, linethickness=thickness)
        return _fenced("(", made, ")") if thickness else made

    def _root(self, _: str) -> str:
        index = self._optional()
        return _element("mroot" if index else "msqrt", self._argument() + index)

    def _fence(self, _: str) -> str:
        opening, inside = self._delimiter(), self.until("\\right", _END)
        self._needs("\\right")
        return _fenced(opening, inside, self._delimiter())

    def _name(self, _: str) -> str:
        has_limits = self._takes("*")
        word = re.sub(r"\\[,; ]|~|\s+", "\u00a0", re.sub(r"\\(?:mathrm|text|rm)\s*|[{}]", "", self._word()))
        if re.search(r"[\\^_$&]", word):
            raise _NotKnownError
        word = escape(word, quote=False)
        return _element("mo", word, movablelimits="true") if has_limits else _element("mi", word, mathvariant="normal")

    def _over(self, name: str) -> str:
        mark = self._argument()
        return _element("munder" if name == "underset" else "mover", self._argument() + mark)

    def _middle(self, _: str) -> str:
        return _operator(self._delimiter(), stretchy="true")

    def _not(self, _: str) -> str:
        piece = self._peek()
        self._place += 1
        character = symbols.character(piece[1:]) if piece[:1] == "\\" else piece
        if not character or len(character) > 1 or unicodedata.category(character)[0] != "S" or character == "^":
            raise _NotKnownError
        return _operator(unicodedata.normalize("NFC", f"{character}\u0338"))

    def _box(self, _: str) -> str:
        return _element("menclose", self._argument(), notation="box")

    def _colored(self, _: str) -> str:
        self._word()  # colours are not shown, as in the app
        return self._argument()

    def _tag(self, name: str) -> str:
        """The numbers of equations are theirs who write; labels are nobody's."""
        self._takes("*")
        word = self._word()
        return "" if name == "label" else _element("mtext", f"\u2003({escape(word, quote=False)})")

    def _modulo(self, _: str) -> str:
        return _element("mtext", "\u2003") + _fenced("(", _element("mtext", "mod\u00a0") + self._argument(), ")")

    def _environment(self, _: str) -> str:
        name = self._word()
        opening, closing, columns, display = symbols.ENVIRONMENTS.get(name.removesuffix("*"), ("?",) * 4)
        if opening == "?":
            raise _NotKnownError
        if name in ("array", "alignat", "alignat*", "alignedat"):
            given = re.sub(r"[^lcr]", "", self._word())
            columns = given if name == "array" else columns
        table = self._table(columns, display)
        self._needs("\\end")
        if self._word() != name:
            raise _NotKnownError
        return _fenced(opening, table, closing) if opening or closing else table

    def _table(self, columns: str, display: str) -> str:
        """columns: their alignment, again and again; in those of equations nothing is between what belongs together."""
        rows: list[str] = []
        cells: list[str] = []
        joined = " joined" if columns == "rl" else ""
        while True:
            side = {"l": "left", "r": "right"}.get(columns[len(cells) % len(columns)] if columns else "", "")
            inside = self.until("&", "\\\\", "\\cr", "\\end", _END)
            cells.append(_element("mtd", inside, **{"class": f"{side}{joined}"}))
            end = self._peek()
            if end in ("\\end", _END):
                rows += [_element("mtr", "".join(cells))] if inside or len(cells) > 1 else []
                return _element("mtable", "".join(rows), displaystyle=display)
            self._place += 1
            if end != "&":
                rows.append(_element("mtr", "".join(cells)))
                cells = []
                length = _LENGTH.match("".join(self._tokens[self._place : self._place + 9]))
                self._place += len(_TOKEN.findall(length[0])) if length else 0
