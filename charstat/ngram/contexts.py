"""The named table of contexts: which histories are counted, in which preset, and what they look at.

    o0 .. o24     the last k characters; exact up to order 8, hashed above
    c14           the classes of the last 14 characters (lower case, upper case, digit, any other character itself),
                  with the last character
    s1.3  s1.4    sparse: the characters at these distances, skipping those between
    p             the prefix of the current word: the start of a run of characters other than space and newline
    p.w1.w2 ...   the prefix and features of the words before it; w1 is the previous word (see hashing.WORD_FIELDS).
                  A word without a class has its shape in place of one (ngram/classes.py)

This file names contexts and parses names; the keys are made in hashing.py, the word features in words.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from charstat.alphabet import Alphabet
from charstat.errors import ContextError
from charstat.ngram.hashing import CHARS, CLASS_MASK, CLASSES_OF, SPARSE, WORD_FEATURES, WORD_FIELDS, WORDS
from charstat.tree import DIGIT, LOWER, SYMBOLS, UPPER, character_class

MAX_ORDER = 24
EXACT_ORDER = 8
DEFAULT_ORDER = 8
ORDER_STEPS = (0, 1, 2, 3, 4, 5, 6, 8, 11, 14, 18, 24)  # the orders of the presets, up to --order; --order itself always

WORD_CONTEXTS = ("p", "p.w1", "p.w1.w2", "p.w1.w2.w3", "p.w2", "p.w2.w3")
COMMON_CONTEXTS = (*WORD_CONTEXTS, "p.w1.w4", "p.w3.w4", "p.capital", "p.w1.capital")
PLAIN_CONTEXTS = (*COMMON_CONTEXTS, "c14", "p.shapes")  # worth little beside classes: bench/MODELS.md
CLASS_CONTEXTS = ("p.k1.k2.k3", "p.K1.K2", "p.k1.k2.k3.k4", "p.K1", "p.topic", "p.w1.topic")
MORE_CLASS_CONTEXTS = ("p.k1.k2", "p.w1.k2", "p.w1.k2.k3", "p.k2.k3", "p.k1.topic")
MORE_CONTEXTS = ("s1.3", "s1.4", "p.w3", "p.number", "p.lower1.lower2", "p.suffix", "p.suffixes")

PRESETS = {
    "chars": (),
    "words": WORD_CONTEXTS,
    "plain": PLAIN_CONTEXTS,
    "default": COMMON_CONTEXTS + CLASS_CONTEXTS,
    "wide": PLAIN_CONTEXTS + CLASS_CONTEXTS + MORE_CLASS_CONTEXTS + MORE_CONTEXTS,
}


@dataclass(frozen=True)
class Context:
    """One context: kind is CHARS, CLASSES_OF, SPARSE or WORDS; param an order, or a mask of positions or word features."""

    name: str
    kind: int
    param: int

    @property
    def is_words(self) -> bool:
        return self.kind == WORDS

    @property
    def nested(self) -> bool:
        """Whether this is one of p, p.w1, p.w1.w2 ..: the word contexts that back off to one another."""
        return self.is_words and self.param in (0b0, 0b1, 0b11, 0b111, 0b1111)

    @property
    def needs_classes(self) -> bool:
        """Whether this looks at the classes of words or at the topic."""
        return self.is_words and self.param & CLASS_MASK != 0

    @property
    def reach(self) -> int:
        """How many characters must precede a position for the context to exist there (0 for word contexts)."""
        if self.kind == SPARSE:
            return self.param.bit_length()
        return 0 if self.is_words else self.param

    @property
    def identity_width(self) -> str:
        """Bits of the identity, and whether it is exact."""
        if self.is_words:
            return "40 hashed"
        if (self.kind == CHARS and self.param <= EXACT_ORDER) or self.kind == SPARSE:
            return f"{7 * (self.param if self.kind == CHARS else self.param.bit_count())} exact"
        return "57 hashed"

    @property
    def fields(self) -> str:
        """What the context looks at, in words."""
        if self.kind == CHARS:
            return ("nothing", "the last character")[self.param] if self.param < 2 else f"the last {self.param} characters"
        if self.kind == CLASSES_OF:
            return f"the classes of the last {self.param} characters, the last character"
        if self.kind == SPARSE:
            return "the characters at distances " + ", ".join(str(j + 1) for j in range(8) if self.param >> j & 1)
        names = [WORD_FIELDS[f] for j, f in enumerate(WORD_FEATURES) if self.param >> j & 1]
        return ", ".join(["the prefix of the current word", *names])


def parse_context(name: str) -> Context:
    """The context of a name such as o6, c14, s1.3 or p.w1.w2. ContextError if there is none."""
    kind, rest = name[:1], name[1:]
    number = int(rest) if rest.isascii() and rest.isdecimal() and len(rest) <= 2 else -1
    if kind == "o" and 0 <= number <= MAX_ORDER:
        return Context(f"o{number}", CHARS, number)
    if kind == "c" and 1 <= number <= 16:
        return Context(f"c{number}", CLASSES_OF, number)
    if kind == "s":
        positions = rest.split(".")
        if all(p in tuple("12345678") for p in positions) and len(set(positions)) == len(positions):
            return Context(name, SPARSE, sum(1 << (int(p) - 1) for p in positions))
    if kind == "p":
        first, *fields = name.split(".")
        if first == "p" and (name == "p" or fields) and all(f in WORD_FEATURES for f in fields) and len(set(fields)) == len(fields):
            return Context(name, WORDS, sum(1 << WORD_FEATURES.index(f) for f in fields))
    raise ContextError(
        f"no context is named {name!r}: presets are {', '.join(PRESETS)}; contexts are o0..o{MAX_ORDER}, c1..c16, s1.3 and other "
        f"distances up to 8, p and p.FIELD... with the fields {', '.join(WORD_FEATURES)}"
    )


def check_order(order: int) -> int:
    """The order, if it is one that can be built (1..24). ContextError otherwise."""
    if not isinstance(order, int) or not 1 <= order <= MAX_ORDER:
        raise ContextError(f"order {order} is out of range: the highest character order is 1..{MAX_ORDER}")
    return order


def select_contexts(contexts: str | Sequence[str] = "default", order: int = DEFAULT_ORDER) -> tuple[Context, ...]:
    """The contexts of a preset (with the character orders up to `order`), or of names: a sequence, or one string with commas.

    A list may include presets. If it names no character order, those up to `order` are added, because word contexts have no counts
    for characters that continue no word of the training text. ContextError for unknown names and orders.
    """
    check_order(order)
    contexts = context_list(contexts)
    names: list[str] = []
    orders = [f"o{k}" for k in sorted({k for k in ORDER_STEPS if k < order} | {order})]
    for name in (n.strip() for n in contexts.split(",")):
        if not name:
            raise ContextError(f"the context list {contexts!r} has an empty name")
        names += [*orders, *PRESETS[name]] if name in PRESETS else [name]
    chosen = [parse_context(n) for n in names]
    if not any(c.kind == CHARS for c in chosen):
        chosen = [parse_context(n) for n in orders] + chosen
    unique = {(c.kind, c.param): c for c in chosen}
    return tuple(sorted(unique.values(), key=context_rank))


def context_list(contexts: str | Iterable[str]) -> str:
    """Names of contexts as one string with commas. ContextError for anything but strings."""
    if isinstance(contexts, str):
        return contexts
    names = list(contexts) if isinstance(contexts, Sequence | set | Iterator) else [None]
    if not all(isinstance(name, str) for name in names):
        raise ContextError(f"contexts are names, in a list or in one string with commas, not {contexts!r:.80}")
    return ",".join(names)


def context_rank(c: Context) -> tuple:
    """Sorts contexts: character orders first and rising, word contexts last, nested ones before the others: the mixer's back-off chains."""
    return c.kind != CHARS, c.is_words, not c.nested, c.param * (c.kind == CHARS or c.nested)


def class_map(alphabet: Alphabet) -> np.ndarray:
    """uint8 [128]: each symbol's class symbol: the class's first symbol for letters and digits, the symbol itself for others."""
    classes = np.arange(SYMBOLS, dtype=np.uint8)
    first: dict[int, int] = {}
    for symbol, char in enumerate(alphabet.chars):
        kind = character_class(char)
        if kind in (LOWER, UPPER, DIGIT):
            classes[symbol] = first.setdefault(kind, symbol)
    return classes
