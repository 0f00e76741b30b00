"""Characters <-> symbols: 127 characters have a symbol of their own, every other code point is the escape symbol 127.

The 127 most frequent code points of the training text get the symbols 0..126, numbered in the leaf order of the decision
tree (tree.py). P(char | escape) comes from an order-0 count of the rare characters, escape method C: a rare character
seen c times of T has c / (T + R + 1), R distinct ones, and the remaining (R + 1) / (T + R + 1) is spread evenly over
all code points never seen. So every code point has a probability, and they add up to 1.

Symbols are characters, not bytes: "–" and "戦" are predicted whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numba import njit

from charstat.errors import CorpusError
from charstat.tree import ESCAPE, DecisionTree, class_huffman, leaves

OWN_SYMBOLS = 127
CODE_POINTS = 0x110000
CHUNK_CHARS = 1 << 22


def code_point_chunks(text: str) -> Iterator[np.ndarray]:
    """The text's code points, uint32, in chunks that need no copy of the whole text."""
    for start in range(0, len(text), CHUNK_CHARS):
        piece = text[start : start + CHUNK_CHARS]
        yield np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), np.uint32)


@njit(cache=True, nogil=True)
def _tally(points, counts):
    for i in range(points.shape[0]):
        counts[points[i]] += 1


@njit(cache=True, nogil=True)
def _translate(points, lookup, out):
    for i in range(points.shape[0]):
        out[i] = lookup[points[i]]


def count_code_points(text: str) -> np.ndarray:
    """How often each code point occurs: int64 [0x110000]."""
    counts = np.zeros(CODE_POINTS, np.int64)
    for points in code_point_chunks(text):
        _tally(points, counts)
    return counts


@dataclass(frozen=True)
class Alphabet:
    """chars: the characters with a symbol of their own, in symbol order. rare: counts of the others in the training text."""

    chars: str
    tree: DecisionTree = field(repr=False, compare=False)
    rare: dict[str, int] = field(default_factory=dict, repr=False)

    @classmethod
    def from_text(cls, text: str) -> Alphabet:
        """The alphabet of a training text. CorpusError if it is empty."""
        return cls.from_counts(count_code_points(text))

    @classmethod
    def from_counts(cls, counts: np.ndarray) -> Alphabet:
        """The alphabet of code-point counts (int64 [0x110000]). Ties of frequency go to the lower code point."""
        present = np.flatnonzero(counts)
        if present.size == 0:
            raise CorpusError("the training text is empty: there is nothing to count")
        ranked = present[np.argsort(-counts[present], kind="stable")]
        own = sorted(int(p) for p in ranked[:OWN_SYMBOLS])
        rare = {chr(p): int(counts[p]) for p in sorted(int(p) for p in ranked[OWN_SYMBOLS:])}
        pairs = class_huffman([chr(p) for p in own], [int(counts[p]) for p in own], sum(rare.values()))
        return cls("".join(leaves(pairs)[:-1]), DecisionTree.from_pairs(pairs), rare)

    @property
    def size(self) -> int:
        """How many characters have a symbol of their own (1..127)."""
        return len(self.chars)

    @cached_property
    def symbol_of(self) -> dict[str, int]:
        """Character -> symbol; characters not in here are the escape."""
        return {c: i for i, c in enumerate(self.chars)}

    @cached_property
    def _lookup(self) -> np.ndarray:
        lookup = np.full(CODE_POINTS, ESCAPE, np.uint8)
        for i, c in enumerate(self.chars):
            lookup[ord(c)] = i
        return lookup

    def encode(self, text: str) -> np.ndarray:
        """The symbols of a text: uint8 [len(text)]."""
        symbols = np.empty(len(text), np.uint8)
        at = 0
        for points in code_point_chunks(text):
            _translate(points, self._lookup, symbols[at : at + points.size])
            at += points.size
        return symbols

    @cached_property
    def _rare_total(self) -> int:
        return sum(self.rare.values())

    def rare_probability(self, char: str) -> float:
        """P(char | escape) of a character without a symbol of its own."""
        distinct = len(self.rare)
        whole = self._rare_total + distinct + 1
        if char in self.rare:
            return self.rare[char] / whole
        return (distinct + 1) / whole / (CODE_POINTS - self.size - distinct)

    @cached_property
    def rare_probabilities(self) -> dict[str, float]:
        """P(char | escape) of the rare characters seen in training, most frequent first."""
        return {c: self.rare_probability(c) for c in sorted(self.rare, key=lambda c: (-self.rare[c], c))}

    def to_dict(self) -> dict:
        return {"chars": list(self.chars), "tree": self.tree.code, "rare": self.rare}

    @classmethod
    def from_dict(cls, d: dict) -> Alphabet:
        """The inverse of to_dict(). ValueError, KeyError or TypeError if d is no alphabet."""
        alphabet = cls("".join(d["chars"]), DecisionTree.from_code(d["tree"]), {str(c): int(n) for c, n in d["rare"].items()})
        if len(set(alphabet.chars)) != alphabet.size or alphabet.tree.code.count(".") != alphabet.size + 1:
            raise ValueError("an alphabet whose tree does not fit its characters")
        return alphabet
