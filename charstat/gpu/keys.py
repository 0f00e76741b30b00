"""Keys of character contexts at every position, by CUDA kernels or by array operations. What a key is: ngram/hashing.py.

char_keys writes identity << 7 | symbol, window_keys the WINDOW symbols from each position on, oldest highest. The positions are
consecutive, and at least as many symbols precede each as the context looks back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from charstat.gpu.arrays import Array, Arrays
from charstat.ngram.contexts import EXACT_ORDER, Context
from charstat.ngram.hashing import CHARS, CLASSES_OF, INVERSE_A, INVERSE_B, MASK57, ODD_A, ODD_B, SEED, SYMBOL_SHIFT, U28, U29, U56

WINDOW = EXACT_ORDER + 1


class Text(NamedTuple):
    """The symbols to count, on the device."""

    symbols: Array  # uint8 [n]
    classes: Array  # uint8 [128]: class symbols


def mix64(x: Array) -> Array:
    """hashing.mix64 of an array."""
    x = (x ^ (x >> np.uint64(30))) * ODD_A
    x = (x ^ (x >> np.uint64(27))) * ODD_B
    return x ^ (x >> np.uint64(31))


def mix57(x: Array) -> Array:
    """hashing.mix57 of an array."""
    x = ((x ^ (x >> U29)) * ODD_A) & MASK57
    x = ((x ^ (x >> U28)) * ODD_B) & MASK57
    return x ^ (x >> U29)


def unmix57(x: Array) -> Array:
    """hashing.unmix57 of an array."""
    x = x ^ (x >> U29)
    x = (x * INVERSE_B) & MASK57
    x = x ^ (x >> U28) ^ (x >> U56)
    x = (x * INVERSE_A) & MASK57
    return x ^ (x >> U29)


def hash57(a: Array, b: Array, c: Array) -> Array:
    """hashing.hash57 of arrays."""
    return mix64(a ^ mix64(b ^ mix64(c + SEED))) >> SYMBOL_SHIFT


def packed(xp: Any, symbols: Array, end: int, n: int, k: int) -> Array:
    """The k symbols before each of the positions end .. end + n, 7 bits each, newest lowest: uint64 [n]."""
    words = xp.zeros(n, np.uint64)
    for j in range(end - k, end):
        words = (words << SYMBOL_SHIFT) | symbols[j : j + n].astype(np.uint64)
    return words


def char_keys(arrays: Arrays, text: Text, context: Context, first: int, out: Array) -> None:
    """Keys of a character context at the positions from `first` on."""
    n = out.size
    where = (np.int32(context.kind), np.int32(context.param), np.int64(first), np.int64(n))
    if not arrays.launch("char_keys", n, text.symbols, text.classes, *where, out):
        out[:] = (char_identities(arrays.xp, text, context, first, n) << SYMBOL_SHIFT) | text.symbols[first : first + n].astype(np.uint64)


def char_identities(xp: Any, text: Text, context: Context, at: int, n: int) -> Array:
    """hashing.char_identity at the positions at .. at + n."""
    kind, param, symbols = context.kind, context.param, text.symbols
    if kind == CHARS:
        if param <= 8:
            return mix57(packed(xp, symbols, at, n, param))
        if param <= 16:
            c = xp.full(n, param, np.uint64)
            return hash57(packed(xp, symbols, at, n, 8), packed(xp, symbols, at - 8, n, param - 8), c)
        c = (packed(xp, symbols, at - 16, n, param - 16) << SYMBOL_SHIFT) | np.uint64(param)
        return hash57(packed(xp, symbols, at, n, 8), packed(xp, symbols, at - 8, n, 8), c)
    if kind == CLASSES_OF:
        classes = text.classes[symbols[at - param : at + n]]
        c = (packed(xp, symbols, at, n, 1) << SYMBOL_SHIFT) | np.uint64(param)
        newest = packed(xp, classes, param, n, min(param, 8))
        older = packed(xp, classes, param - 8, n, param - 8) if param > 8 else xp.zeros(n, np.uint64)
        return hash57(newest, older, c)
    words = xp.zeros(n, np.uint64)
    for j in range(8):
        if param >> j & 1:
            words = (words << SYMBOL_SHIFT) | symbols[at - 1 - j : at - 1 - j + n].astype(np.uint64)
    return mix57(words)


def window_keys(arrays: Arrays, text: Text, first: int, out: Array) -> None:
    """Packed WINDOW-grams that start at the positions from `first` on."""
    n = out.size
    if not arrays.launch("window_keys", n, text.symbols, np.int32(WINDOW), np.int64(first), np.int64(n), out):
        out[:] = packed(arrays.xp, text.symbols, first + WINDOW, n, WINDOW)
