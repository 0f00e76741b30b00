"""What other models say of the next token, as natural log-probabilities [n, V]: checked, and turned into probabilities.

    array               float16, float32 or float64 [n, V], or [n, E, V] for E experts
    function            called with (start, end) of a chunk of the ids, just before it is scored: an array for these

A row is what a model says *before* its token. float16 is looked up in a table of all 65,536 values of exp(): ten times as fast as
computing it, and exact for what float16 holds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from charstat.errors import ArgumentError

TOLERANCE = 2e-3  # of a row's sum; float16 at -10 is no more exact than 0.4 %
TOLERANCE_HALF = 1e-2

TokenAdvice = np.ndarray | Callable[[int, int], np.ndarray]


@cache
def _exp_of_half() -> np.ndarray:
    """float32 [65536]: exp() of the float16 with these bits, infinities and nan included."""
    with np.errstate(over="ignore", invalid="ignore"):
        table = np.exp(np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32))
    table.setflags(write=False)
    return table


def probabilities(rows: np.ndarray) -> np.ndarray:
    """exp() of log-probabilities: float32, the same shape."""
    if rows.dtype == np.float16:
        return _exp_of_half()[rows.view(np.uint16)]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp(rows.astype(np.float32, copy=False))


def check_shape(rows: Any, n: int, experts: int, vocab_size: int, start: int = 0) -> np.ndarray:
    """Advice as [n, experts, vocab_size]. ArgumentError for other shapes and types."""
    rows = np.asarray(rows)
    wanted = (n, experts, vocab_size)
    if rows.dtype.kind != "f" or not (rows.shape == wanted or (experts == 1 and rows.shape == (n, vocab_size))):
        shape = wanted if experts > 1 else (n, vocab_size)
        where = f" for the tokens from {start:,} on" if start else ""
        raise ArgumentError(
            f"advice must be log-probabilities, floats in the shape {shape}{where}: a row before each token. It is {rows.dtype} in the shape {rows.shape}"
        )
    return np.ascontiguousarray(rows.reshape(wanted))


def check_sums(rows: np.ndarray, probs: np.ndarray, start: int) -> None:
    """ArgumentError, naming the token, unless every row's probabilities are finite and add up to 1."""
    sums = probs.sum(axis=2, dtype=np.float64)
    good = np.abs(sums - 1.0) <= (TOLERANCE_HALF if rows.dtype == np.float16 else TOLERANCE)  # not so for nan either
    if not good.all():
        i, e = (int(k) for k in np.argwhere(~good)[0])
        raise ArgumentError(
            f"the advice before token {start + i:,} adds up to {sums[i, e]:.6g}, not to 1: it must be the natural logarithms of "
            "probabilities, as log_softmax() gives them"
        )
