"""LaTeX's names: most that stand for a character are HTML's too, as both have them from the AMS and ISO."""

from __future__ import annotations

import re
import unicodedata
from html.entities import html5


def _pairs(text: str) -> dict[str, str]:
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))


# What HTML has otherwise, or not at all.
_CHARACTERS = _pairs(r"""
    to → gets ← infty ∞ partial ∂ leftrightarrow ↔ iff ⟺ implies ⟹ impliedby ⟸ Longleftrightarrow ⟺ hookrightarrow ↪
    ldots … dots … dotsc … dotso … hdots … cdots ⋯ dotsb ⋯ dotsm ⋯ dotsi ⋯ vdots ⋮ ddots ⋱ cdot ⋅ circ ∘ star ⋆ ast ∗
    phi ϕ varphi φ epsilon ϵ varepsilon ε vartheta ϑ exists ∃ nexists ∄ neg ¬ lnot ¬ land ∧ lor ∨ le ≤ leq ≤ ge ≥ geq ≥
    ne ≠ neq ≠ ll ≪ gg ≫ sim ∼ simeq ≃ cong ≅ doteq ≐ coloneqq ≔ triangleq ≜ mid ∣ nmid ∤ parallel ∥ perp ⟂ models ⊨
    bigcup ⋃ bigcap ⋂ bigoplus ⨁ bigotimes ⨂ bigvee ⋁ bigwedge ⋀ coprod ∐ iint ∬ iiint ∭ oint ∮ setminus ∖ emptyset ∅
    varnothing ∅ degree ° hbar ℏ ell ℓ Re ℜ Im ℑ dagger † ddagger ‡ aleph ℵ bullet ∙ prime ′ top ⊤ bot ⊥ triangle △
    lbrace { rbrace } lbrack [ rbrack ] langle ⟨ rangle ⟩ lvert | rvert | vert | lVert ‖ rVert ‖ Vert ‖ { { } } | ‖
    % % $ $ # # & & _ _ backslash \ lparen ( rparen ) colon : lt < gt > oslash ⊘ asymp ≍ heartsuit ♡ diamondsuit ♢
    square □ Box □ blacksquare ■ checkmark ✓
""")
PLAIN = {"-": "−", "*": "∗"}
LETTERS = "∞∅°⊤⊥□■△✓%$#&_"  # that stand for things, though Unicode has them among the operators
BRACKETS = "()[]{}|‖⟨⟩⌊⌋⌈⌉\\"
ANGLES = {"<": "⟨", ">": "⟩"}
BIG = frozenset("∑∏∐⋃⋂⨁⨂⋁⋀")

_NAMES = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp dim ker arg deg"
_OVER_LIMITS = "lim max min sup inf det gcd Pr limsup liminf argmax argmin"
FUNCTIONS = {
    name: re.sub("^(lim|arg)(?=sup|inf|max|min)", "\\1\u00a0", name) for name in f"{_NAMES} {_OVER_LIMITS}".split()
} | {"bmod": "mod"}
LIMITS = frozenset([*_OVER_LIMITS.split(), "overbrace", "underbrace"])
CLOSE = frozenset(["", *"([{}]).,=^_&", "\\\\", "\\left", "\\right", "\\end", "\\,", "\\bigl"])  # behind a function

SPACES = _pairs(", 0.1667em : 0.2222em > 0.2222em ; 0.2778em quad 1em qquad 2em") | {" ": "0.25em", "\n": "0.25em"}
NOTHING = {"!", "displaystyle", "textstyle", "limits", "nolimits", "nonumber", "notag", "hline", "large", "Large"}
FONTS = {
    "mathbf": "BOLD", "boldsymbol": "BOLD ITALIC", "bm": "BOLD ITALIC", "mathbb": "DOUBLE-STRUCK", "mathcal": "SCRIPT",
    "mathscr": "SCRIPT", "mathfrak": "FRAKTUR", "mathsf": "SANS-SERIF", "mathtt": "MONOSPACE", "mathit": "ITALIC",
    "mathrm": "normal", "mathop": "",
}  # fmt: skip
TEXTS = {"text": "", "textrm": "", "mbox": "", "textbf": "bold", "textit": "italic"}
ACCENTS = _pairs(
    "hat ^ widehat ^ tilde ~ widetilde ~ bar ¯ overline ¯ vec → dot ˙ ddot ¨ check ˇ mathring ˚ overrightarrow → "
    "overbrace ⏞ underbrace ⏟ underline _"
)
NARROW = {"hat", "tilde", "bar", "vec", "dot", "ddot", "check", "mathring"}
SIZES = {
    f"{name}{side}": size
    for name, size in {"big": "1.2em", "Big": "1.8em", "bigg": "2.4em", "Bigg": "3em"}.items()
    for side in ("", "l", "r")
}
# Which of the reader's methods each has.
COMMANDS = {
    "frac": "_fraction", "dfrac": "_fraction", "tfrac": "_fraction", "cfrac": "_fraction", "binom": "_fraction",
    "dbinom": "_fraction", "tbinom": "_fraction", "sqrt": "_root", "left": "_fence", "middle": "_middle",
    "operatorname": "_name", "overset": "_over", "underset": "_over", "stackrel": "_over", "boxed": "_box",
    "not": "_not", "tag": "_tag", "label": "_tag", "pmod": "_modulo", "begin": "_environment", "color": "_colored",
    "textcolor": "_colored",
}  # fmt: skip
_EQUATIONS = ("", "", "rl", "true")
# Brackets, alignment of the columns, and whether all is laid out as in a line of its own.
ENVIRONMENTS = {
    "matrix": ("", "", "", ""), "pmatrix": ("(", ")", "", ""), "bmatrix": ("[", "]", "", ""),
    "Bmatrix": ("{", "}", "", ""), "vmatrix": ("|", "|", "", ""), "Vmatrix": ("‖", "‖", "", ""),
    "smallmatrix": ("", "", "", ""), "array": ("", "", "", ""), "cases": ("{", "", "l", ""),
    "aligned": _EQUATIONS, "align": _EQUATIONS, "alignat": _EQUATIONS, "alignedat": _EQUATIONS, "split": _EQUATIONS,
    "gathered": ("", "", "", "true"), "gather": ("", "", "", "true"), "equation": ("", "", "", "true"),
}  # fmt: skip


# Unicode had some of these letters before it had the alphabets.
_HOLES = {"DOUBLE-STRUCK": ["DOUBLE-STRUCK"], "SCRIPT": ["SCRIPT"], "FRAKTUR": ["BLACK-LETTER"]}


def character(name: str) -> str | None:
    """What the command stands for, if it is one of those that stand for a character."""
    found = _CHARACTERS.get(name) or html5.get(f"{name};", "")
    return found if len(found) == 1 and found.isprintable() and not found.isspace() else None


def styled(letter: str, font: str) -> str:
    """Among Unicode's mathematical letters, since browsers know no others; itself where there is none."""
    match = re.fullmatch(r"(?:(?:LATIN|GREEK) (\w+) LETTER )?((?:DIGIT )?\w+)", unicodedata.name(letter[0], ""))
    if font in ("", "normal") or match is None:
        return letter
    what = " ".join(filter(None, match.groups()))
    for kind in (f"MATHEMATICAL {font}", f"MATHEMATICAL {font.removesuffix(' ITALIC')}", *_HOLES.get(font, ())):
        try:
            return unicodedata.lookup(f"{kind} {what}")
        except KeyError:
            continue
    return letter
