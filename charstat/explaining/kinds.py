"""Kinds of characters, for totals: where in a word a letter stands says most about what it costs."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

KINDS = ("first letters", "inside words", "capitals", "digits", "punctuation", "spaces", "line breaks", "others")
FIRST, INSIDE, CAPITALS, DIGITS, PUNCTUATION, SPACES, LINE_BREAKS, OTHERS = range(len(KINDS))
ABOUT = (
    "letters after something else than a letter, capitals aside",
    "letters after a letter, capitals aside",
    "capitals, wherever they stand",
    "digits",
    "punctuation and symbols",
    "spaces and tabs",
    "line breaks",
    "marks, control characters, and what else there is",
)
BREAKS = "\n\r\v\f\x85\u2028\u2029"


def kind_of(char: str, before: str) -> int:
    """The kind of a character, an index into KINDS. before: the character before it; "" at the start of a text."""
    if char in BREAKS:
        return LINE_BREAKS
    if char.isspace():
        return SPACES
    if char.isalpha():
        return CAPITALS if char.isupper() or char.istitle() else INSIDE if before.isalpha() else FIRST
    if char.isdigit():
        return DIGITS
    return PUNCTUATION if unicodedata.category(char)[0] in "PS" else OTHERS


def kinds_of(text: str, before: str = "") -> list[int]:
    """The kind of every character of a text. before: the character before the text."""
    return [kind_of(char, last) for last, char in pairwise((before, *text))]


def shown(char: str) -> str:
    """Something to see for a character: control characters as their pictures, line breaks as an arrow, marks on a dotted circle."""
    if char == "\n":
        return "↵"
    if ord(char) < 0x20:
        return chr(0x2400 + ord(char))
    if unicodedata.category(char)[0] == "M":
        return "◌" + char
    return char if char.isprintable() or char.isspace() and char not in BREAKS else "\ufffd"


def named(char: str) -> str:
    """As shown(), and a space as an open box: for a character that stands alone."""
    return "␣" if char == " " else shown(char)
