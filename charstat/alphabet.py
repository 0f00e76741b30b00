"""Characters <-> symbols: 127 characters have a symbol of their own; all others share the escape symbol, 127.

The 127 most frequent code points of the training text get the symbols 0..126, numbered in the leaf order of the decision
tree (tree.py). P(char | escape) comes from an order-0 count of the rare characters, escape method C: a rare character
seen c times has c / (T + R + 1), where T counts all rare characters and R the distinct ones. The remaining (R + 1) / (T + R + 1)
is spread evenly over the code points that were never seen. So every code point has a probability, and they add up to 1.

Symbols are characters, not bytes: "–" and "戦" are predicted whole. An alphabet of bytes (of_bytes, that of a training text of type bytes)
has 256 characters instead, the bytes: those below 128 are their ASCII characters, the others have no case and are no letters (U+DC80 ..
U+DCFF, Python's surrogateescape). Then what is passed in and what comes out is bytes, and everything else is the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from numba import njit

from charstat.advice import checked_rows, checked_vocab
from charstat.arguments import check_text, check_whole
from charstat.errors import ArgumentError, CorpusError
from charstat.tree import ESCAPE, SYMBOLS, CodeTree, class_huffman, leaves

OWN_SYMBOLS = 127
CODE_POINTS = 0x110000
SHORT_CHARS = 1 << 10  # below this, numpy is done before numba has unpacked the string
SPAN_CHARS = 1 << 20  # the least work for a thread: a third of a millisecond, three times what starting the threads takes


def text_of(data: bytes | bytearray) -> str:
    """Bytes as the characters that an alphabet of bytes has for them, one each."""
    return data.decode("ascii", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """The inverse of text_of()."""
    return text.encode("ascii", "surrogateescape")


def _code_points(text: str) -> np.ndarray:
    """A copy of the text's code points, lone surrogates included: uint32 [len(text)]."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


try:  # private to numba, which uses it for ord(text[i]); it reads the string in place, 0.3 ns a character
    from numba.cpython.unicode import _get_code_point as code_point_at

    _readable = str  # what the kernels take
except ImportError:  # without it, kernels read an array, a copy of 4 bytes a character

    @njit(inline="always")
    def code_point_at(points, i):
        return points[i]

    _readable = _code_points


@njit(cache=True, nogil=True)
def _tally(text, lo, hi, counts):
    """counts[p] += 1 for the code points p of text[lo:hi]; returns the highest one."""
    top = np.uint32(0)
    for i in range(lo, hi):
        point = np.uint32(code_point_at(text, i))
        counts[point] += 1
        top = max(top, point)
    return top


@njit(cache=True, nogil=True)
def _translate(text, lo, hi, lookup, out):
    for i in range(lo, hi):
        out[i] = lookup[np.uint32(code_point_at(text, i))]


def _on_threads(task: Callable[[int, int], object], n: int, threads: int | None) -> list:
    """[task(lo, hi)] of spans that cover range(n), each on a thread of its own; short texts on this one. threads: None for all."""
    if n < 2 * SPAN_CHARS or threads == 1:  # subtle: first, because os.cpu_count() takes longer than 10,000 characters
        return [task(0, n)]
    k = max(1, min(threads or os.cpu_count() or 1, n // SPAN_CHARS))
    with ThreadPoolExecutor(k) as pool:
        return list(pool.map(lambda span: task(*span), pairwise(n * t // k for t in range(k + 1))))


def _plain(text: str | bytes) -> str:
    """The text itself; of an instance of a subclass, which numba does not know, the plain string. ArgumentError for anything else."""
    return text_of(text) if isinstance(text, bytes | bytearray) else str.__str__(check_text(text))


def _end(text: str | bytes, end: int | None) -> int:
    return len(text) if end is None else min(end, len(text))


def count_code_points(text: str | bytes, threads: int | None = None, end: int | None = None) -> np.ndarray:
    """How often each code point occurs in text[:end]: int64 [0x110000]. threads: at most so many, None for all."""
    points = _readable(_plain(text))

    def tally(lo: int, hi: int) -> tuple[np.ndarray, int]:
        counts = np.zeros(CODE_POINTS, np.int64)
        return counts, _tally(points, lo, hi, counts) + 1

    (counts, _), *others = _on_threads(tally, _end(text, end), threads)
    for more, top in others:  # subtle: beyond the highest code point the pages of `more` were never touched, and stay so
        counts[:top] += more[:top]
    return counts


@dataclass(frozen=True)
class Alphabet:
    """chars: the characters with a symbol of their own, in symbol order. rare: counts of the others in the training text. of_bytes: they stand
    for bytes (text_of)."""

    chars: str
    tree: CodeTree = field(repr=False, compare=False)
    rare: dict[str, int] = field(default_factory=dict, repr=False)
    of_bytes: bool = False

    @classmethod
    def from_text(cls, text: str | bytes, threads: int | None = None, end: int | None = None) -> Alphabet:
        """The alphabet of a training text, text[:end]; of bytes if it is bytes. threads: at most so many, None for all. CorpusError if the
        text is empty."""
        if end is not None:
            check_whole(end, "end", 0)
        return cls.from_counts(count_code_points(text, threads, end), isinstance(text, bytes | bytearray))

    @classmethod
    def from_counts(cls, counts: np.ndarray, of_bytes: bool = False) -> Alphabet:
        """The alphabet of code-point counts (int64 [0x110000]). Ties of frequency go to the lower code point."""
        present = np.flatnonzero(counts)
        if present.size == 0:
            raise CorpusError("the training text is empty: there is nothing to count")
        ranked = present[np.argsort(-counts[present], kind="stable")]
        own = sorted(int(p) for p in ranked[:OWN_SYMBOLS])
        rare = {chr(p): int(counts[p]) for p in sorted(int(p) for p in ranked[OWN_SYMBOLS:])}
        pairs = class_huffman([chr(p) for p in own], [int(counts[p]) for p in own], sum(rare.values()))
        return cls("".join(leaves(pairs)[:-1]), CodeTree.from_pairs(pairs), rare, of_bytes)

    def text(self, value: str | bytes) -> str:
        """What a caller calls a text, as characters of this alphabet: a str, or bytes if it is of bytes. ArgumentError for the other one."""
        if not self.of_bytes:
            return check_text(value)
        if isinstance(value, bytes | bytearray):
            return text_of(value)
        hint = ": encode it first, as it was for the build" if isinstance(value, str) else ""
        raise ArgumentError(f"a model of bytes takes bytes, not {type(value).__name__}{hint}")

    def unit(self, char: str) -> str | bytes:
        """A character of this alphabet as callers get it: itself, or its byte."""
        return bytes_of(char) if self.of_bytes else char

    @property
    def n_points(self) -> int:
        """How many characters there are, seen or not."""
        return 256 if self.of_bytes else CODE_POINTS

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

    def encode(self, text: str | bytes, threads: int | None = None, end: int | None = None) -> np.ndarray:
        """The symbols of text[:end], which is not copied: uint8 [n]. threads: at most so many, None for all; short texts take one.

        ArgumentError for anything but a str, or bytes if the alphabet is of bytes.
        """
        text, lookup = _plain(self.text(text)), self._lookup
        n = _end(text, end)
        if n < SHORT_CHARS:
            return lookup.take(_code_points(text[:n]))
        points, symbols = _readable(text), np.empty(n, np.uint8)
        _on_threads(lambda lo, hi: _translate(points, lo, hi, lookup, symbols), n, threads)
        return symbols

    def decode(self, symbols: np.ndarray, escape: str | bytes | None = None) -> str | bytes:
        """The characters of symbols, ints [n]; `escape` where a character had no symbol of its own, by default "\ufffd", or b"?" in bytes.
        ArgumentError for unused symbols."""
        symbols = np.asarray(symbols).ravel()
        wrong = symbols[(symbols != ESCAPE) & ((symbols < 0) | (symbols >= self.size))]
        if wrong.size:
            raise ArgumentError(f"{wrong[0]} is no symbol of this alphabet: it has 0 to {self.size - 1}, and {ESCAPE} for the escape")
        if escape is None:
            escape = b"?" if self.of_bytes else "\ufffd"
        return escape[:0].join([escape if s == ESCAPE else self.unit(self.chars[s]) for s in symbols.tolist()])

    def align(self, vocab: Sequence[str], probs: np.ndarray, unknown: str | None = None) -> np.ndarray:
        """Probabilities over a vocabulary of characters as probabilities of the 128 symbols: float64 [n, 128], or [128] for one row.

        probs: [n, len(vocab)] or [len(vocab)]. The columns of characters without a symbol of their own add up in the escape's. unknown:
        the entry of vocab for every character outside it; its probability is shared evenly by the symbols whose characters vocab lacks
        and the escape. Characters that vocab lacks get 0 without it. ArgumentError: see advice.Advice.
        """
        names = checked_vocab(vocab, unknown)
        rows = checked_rows(probs, len(names))
        symbols = np.array([-1 if name == unknown else self.symbol_of.get(self.text(name), ESCAPE) for name in names])
        out = np.zeros((*rows.shape[:-1], SYMBOLS))
        own = np.flatnonzero((symbols >= 0) & (symbols != ESCAPE))
        out[..., symbols[own]] = rows[..., own]
        out[..., ESCAPE] = rows[..., symbols == ESCAPE].sum(axis=-1)
        if unknown is not None:
            heirs = [*sorted(set(range(self.size)) - set(symbols.tolist())), ESCAPE]
            out[..., heirs] += rows[..., symbols == -1] / len(heirs)
        return out

    @cached_property
    def _rare_total(self) -> int:
        return sum(self.rare.values())

    def rare_probability(self, char: str) -> float:
        """P(char | escape) of a character without a symbol of its own. ArgumentError for anything but a character."""
        if not isinstance(char, bytes | bytearray if self.of_bytes else str) or len(char) != 1:
            raise ArgumentError(f"expected {'bytes' if self.of_bytes else 'a string'} of one character, not {char!r:.40}")
        return self._rare_probability(self.text(char))

    def _rare_probability(self, char: str) -> float:
        distinct = len(self.rare)
        unseen = self.n_points - self.size - distinct
        whole = self._rare_total + (distinct + 1 if unseen else 0)
        return self.rare[char] / whole if char in self.rare else (distinct + 1) / whole / unseen

    @cached_property
    def rare_probabilities(self) -> dict[str | bytes, float]:
        """P(char | escape) of the rare characters seen in training, most frequent first."""
        return {self.unit(c): self._rare_probability(c) for c in sorted(self.rare, key=lambda c: (-self.rare[c], c))}

    def to_dict(self) -> dict:
        return {"chars": list(self.chars), "tree": self.tree.code, "rare": self.rare} | ({"bytes": True} if self.of_bytes else {})

    @classmethod
    def from_dict(cls, d: dict) -> Alphabet:
        """The inverse of to_dict(). ValueError, KeyError or TypeError if d is not an alphabet."""
        alphabet = cls(
            "".join(d["chars"]), CodeTree.from_code(d["tree"]), {str(c): int(n) for c, n in d["rare"].items()}, d.get("bytes") is True
        )
        if len(set(alphabet.chars)) != alphabet.size or alphabet.tree.code.count(".") != alphabet.size + 1:
            raise ValueError("the alphabet's tree does not fit its characters")
        if alphabet.of_bytes and not all(c.isascii() or "\udc80" <= c <= "\udcff" for c in (*alphabet.chars, *alphabet.rare)):
            raise ValueError("the alphabet has characters that are no bytes")
        return alphabet
