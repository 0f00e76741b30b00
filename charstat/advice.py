"""Advice by name: what an expert says of the next character, with the vocabulary that its columns stand for.

    Advice(["a", "b", "<unk>"], probs, unknown="<unk>")        probs: [n, 3], a row before each character

A stream of another order of characters, or of other characters, takes the columns by their names (Alphabet.align). A bare array has no
names: its columns must be the stream's 128 symbols, and in a wrong order it would be quietly wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from charstat.errors import ArgumentError
from charstat.tree import SYMBOLS

SUM_TOLERANCE = 2e-3  # of a row: what float16 costs
MAX_ADVICE = 1.0 + 1e-3  # of a probability, rounding included
MAX_ADVICE_SUM = 1.0 + 1e-2  # of a row in symbol order


class Aligning(Protocol):
    """An alphabet.Alphabet, which imports this file."""

    def align(self, vocab: Sequence[str], probs: np.ndarray, unknown: str | None = None) -> np.ndarray: ...


class Advice:
    """An expert's probabilities of the next character.

    vocab: the character of each column, a string or a list of strings. probs: any float dtype, [n, len(vocab)], a row before each of n
    characters, or [len(vocab)] for one; each row adds up to 1, or is all 0 where the expert is silent. unknown: the entry of vocab that
    stands for every character outside it, such as "<unk>". ArgumentError that says what is wrong.
    """

    def __init__(self, vocab: Sequence[str], probs: np.ndarray, unknown: str | None = None):
        self.vocab, self.unknown = checked_vocab(vocab, unknown), unknown
        self.probs = checked_rows(probs, len(self.vocab))

    def __len__(self) -> int:
        return len(self.probs) if self.probs.ndim == 2 else 1

    def __getitem__(self, rows: slice) -> Advice:
        """The same for some of the characters: advice[start:end]."""
        if not isinstance(rows, slice) or self.probs.ndim != 2:
            raise ArgumentError("take a slice of the rows of an Advice, such as advice[start:end]")
        part = object.__new__(Advice)  # checked already
        part.vocab, part.unknown, part.probs = self.vocab, self.unknown, self.probs[rows]
        return part

    def __repr__(self) -> str:
        return f"Advice({len(self.vocab)} characters, {len(self)} rows)"

    def aligned(self, alphabet: Aligning) -> np.ndarray:
        """The probabilities of an alphabet's symbols: float64 [n, 128], or [128] for one row."""
        return alphabet.align(self.vocab, self.probs, self.unknown)


AnyAdvice = Advice | Sequence[Advice] | np.ndarray


def checked_vocab(vocab: Sequence[str], unknown: str | None) -> list[str]:
    """The vocabulary as a list: characters, each once, and `unknown` where it is given. ArgumentError that says what is wrong."""
    try:
        names = list(vocab)
    except TypeError:
        raise ArgumentError(f"vocab must list the character of each column, not be {type(vocab).__name__}") from None
    if not names:
        raise ArgumentError("vocab is empty: it lists the character of each column")
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ArgumentError(f"vocab has {twice!r} twice: each column stands for one character")
    if unknown is not None and unknown not in names:
        raise ArgumentError(f"unknown is {unknown!r}, which vocab does not have")
    for name in names:
        if name != unknown and not (isinstance(name, str | bytes) and len(name) == 1):
            raise ArgumentError(
                f"vocab has {name!r}, which is no character: name the entry for all others with unknown=, and spell out bytes and tokens"
            )
    return names


def checked_rows(probs: np.ndarray, columns: int) -> np.ndarray:
    """The probabilities as float64, [n, columns] or [columns]. ArgumentError unless each row is a distribution, or all 0."""
    try:
        rows = np.asarray(probs, np.float64)
    except (TypeError, ValueError) as e:
        raise ArgumentError(f"probs must be an array of probabilities, not {type(probs).__name__}") from e
    if rows.ndim not in (1, 2) or rows.shape[-1] != columns:
        raise ArgumentError(f"probs must have a column for each of the {columns} entries of vocab, not the shape {rows.shape}")
    if not (np.isfinite(rows).all() and (rows >= 0.0).all()):
        raise ArgumentError("probs must be probabilities, finite and not negative: take exp() of logarithms first")
    sums = np.atleast_1d(rows.sum(axis=-1))
    wrong = np.flatnonzero((np.abs(sums - 1.0) > SUM_TOLERANCE) & (sums != 0.0))
    if wrong.size:
        raise ArgumentError(
            f"row {wrong[0]} of probs adds up to {sums[wrong[0]]:.6g}: each must add up to 1, or be all 0 where the expert is silent"
        )
    return rows


def rows_of(advice: object, alphabet: Aligning) -> object:
    """Advice, or a list of it, one for each expert, as an array [n, experts, 128] or [experts, 128]; anything else unchanged."""
    listed = [advice] if isinstance(advice, Advice) else advice
    if not (isinstance(listed, list | tuple) and listed and all(isinstance(part, Advice) for part in listed)):
        return advice
    rows = [part.aligned(alphabet) for part in listed]
    if len({part.shape for part in rows}) > 1:
        raise ArgumentError(
            f"each expert must advise on the same characters: their rows are {', '.join(str(len(part)) for part in listed)}"
        )
    return np.stack(rows, axis=-2)


def advice_for(advice: object, n: int) -> tuple[Callable[[int, int], object], int]:
    """(the advice for characters start .. end, as a function of both; how many experts it is from). ValueError unless it is for n characters."""
    parts = [advice] if isinstance(advice, Advice | np.ndarray) else advice
    if any(len(part) != n for part in parts):
        raise ValueError(f"advice must have a row for each of the {n:,} characters")
    if isinstance(advice, np.ndarray):
        return lambda start, end: advice[start:end], advice.shape[1]
    return lambda start, end: [part[start:end] for part in parts], len(parts)


def advice_array(advice: object, alphabet: Aligning, n: int | None, experts: int) -> np.ndarray:
    """What so many experts say before each of n characters (None: of one step, advice for it alone) as float64 [n or 1, experts, 128].

    ValueError that says what is wrong with it.
    """
    advice = rows_of(advice, alphabet)
    try:
        rows = np.ascontiguousarray(advice, np.float64)
    except (TypeError, ValueError, OverflowError) as e:
        raise ValueError(f"advice must be an array of probabilities, not {type(advice).__name__}") from e
    wanted = (experts, SYMBOLS) if n is None else (n, experts, SYMBOLS)
    if rows.shape != wanted:
        raise ValueError(f"advice must have the shape {wanted}, not {rows.shape}")
    if not (np.isfinite(rows).all() and (rows >= 0.0).all() and (rows <= MAX_ADVICE).all()):
        raise ValueError("advice must be probabilities: finite, not negative, at most 1")
    if rows.size and (most := float(rows.sum(axis=-1).max())) > MAX_ADVICE_SUM:
        raise ValueError(f"advice must be probabilities that add up to 1 at most: a row adds up to {most:.6g}")
    return rows[np.newaxis] if n is None else rows
