"""Interpolated modified Kneser-Ney: the static baseline. It learns nothing while text is observed.

Chen and Goodman, "An empirical study of smoothing techniques for language modeling", 1998, equations 5.26 to 5.29: at every order

    p_k(s) = (c(s) - D(c(s))) / n + (D1 N1 + D2 N2 + D3 N3) / n * p_{k-1}(s)       n = Σ c, N1, N2, N3: types with count 1, 2, more
    Y = n1 / (n1 + 2 n2)    D1 = 1 - 2 Y n2 / n1    D2 = 2 - 3 Y n3 / n2    D3 = 3 - 4 Y n4 / n3     n_r: rows with count r at the order

p_{-1} is uniform over the used symbols. The longest order counts occurrences. The lower orders count continuations (Kneser and Ney 1995):
in how many contexts of the next longer order the symbol was seen (continuation.py). These follow from the next order's table up to
order 8; an order whose next one is hashed keeps plain counts, with discounts of its own. If an n_r is 0, or a discount lies outside
[0, r], Ney's absolute discount Y is used instead, or 1/2 if Y does not exist either.

KneserNey(model).discounts, discount_rows() and `charstat inspect --discounts` show the discounts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from charstat.ngram.chain import Place, build_chain, find, move_on, new_place
from charstat.ngram.chain_model import ChainModel
from charstat.ngram.continuation import level_sizes, with_continuation
from charstat.ngram.overlay import Overlay, new_overlay
from charstat.ngram.table import row_count, row_symbol
from charstat.symbol_model import best_symbol
from charstat.tree import SYMBOLS

if TYPE_CHECKING:
    from charstat.model import Model


class State(NamedTuple):
    """A stream on a chain with continuation counts."""

    place: Place
    overlay: Overlay  # empty: find() takes one, and this model counts nothing online
    discounts: np.ndarray  # float64 [K, 4]: of counts 0, 1, 2, 3 and more


@njit(cache=True, nogil=True)
def _counts_of_counts(rows, out):
    for r in range(rows.shape[0]):
        c = row_count(rows[r])
        if 0 < c < out.shape[0]:
            out[c] += 1


def modified_discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """D1, D2, D3+ of counts of counts n_1 .. n_4 (int [5], n_0 unused)."""
    n = [float(c) for c in counts]
    y = n[1] / (n[1] + 2.0 * n[2]) if n[1] > 0.0 and n[2] > 0.0 else 0.5
    discounts = []
    for r in (1, 2, 3):
        d = r - (r + 1) * y * n[r + 1] / n[r] if n[r] > 0.0 and n[r + 1] > 0.0 else y
        discounts.append(d if 0.0 < d < r else y)
    return discounts[0], discounts[1], discounts[2]


@njit(cache=True, nogil=True, inline="always")
def _add_level(rows, lo, hi, discounts, out):
    n, kept = np.int64(0), 0.0
    for r in range(lo, hi):
        c = row_count(rows[r])
        n += c
        kept += discounts[min(c, 3)]
    share = 1.0 / n
    backoff = kept * share
    for s in range(SYMBOLS):
        out[s] *= backoff
    for r in range(lo, hi):
        row = rows[r]
        c = row_count(row)
        out[row_symbol(row)] += (c - discounts[min(c, 3)]) * share


@njit(cache=True, nogil=True)
def blend(chain, kn, out):
    """out[symbol] := P(symbol) from the rows in kn.place.row_ranges."""
    for s in range(SYMBOLS):
        out[s] = 1.0 / chain.n_used if chain.used[s] else 0.0
    for k in range(chain.param.shape[0]):
        lo, hi = kn.place.row_ranges[k, 0], kn.place.row_ranges[k, 1]
        if lo == hi:
            break  # a context that was never seen has no longer ones either
        if chain.continued_at[k] >= 0:
            shift = chain.continued_at[k] - chain.row_at[k]
            _add_level(chain.continued, lo + shift, hi + shift, kn.discounts[k], out)
        else:
            _add_level(chain.rows, lo, hi, kn.discounts[k], out)


@njit(cache=True, nogil=True)
def distribution(chain, kn, out):
    """out[symbol] := P(symbol) for the current history: float64 [128], sum 1."""
    find(chain, kn.place, kn.overlay)
    blend(chain, kn, out)


@njit(cache=True, nogil=True)
def observe(chain, kn, symbol):
    """Move on: the model is static."""
    move_on(kn.place, symbol)


@njit(cache=True, nogil=True)
def run(chain, kn, symbols, p, guesses, rows, best_rare, scratch):
    """Observe symbols one by one; see symbol_model.SymbolModel._run_symbols."""
    for i in range(symbols.shape[0]):
        out = rows[i] if rows.shape[0] > 0 else scratch
        distribution(chain, kn, out)
        if guesses.shape[0] > 0:
            guesses[i] = np.uint8(best_symbol(out, best_rare))
        symbol = np.int64(symbols[i])
        p[i] = out[symbol]
        observe(chain, kn, symbol)


class KneserNey(ChainModel):
    """Interpolated modified Kneser-Ney as a CharModel on a built model.

    max_order: None for the model's. discounts: float [orders, 3] (D1, D2, D3+), instead of the estimated ones. ValueError if they do not
    fit the orders or lie outside their ranges.
    """

    def __init__(self, model: Model, max_order: int | None = None, discounts: np.ndarray | None = None):
        model.require_all_counts("Kneser-Ney, which counts contexts,")
        super().__init__(model, with_continuation(build_chain(model, max_order)))
        levels = self.chain.param.size
        self.counts_of_counts = np.zeros((levels, 5), np.int64)
        for k in range(levels):
            _counts_of_counts(self._rows(k), self.counts_of_counts[k])
        if discounts is None:
            discounts = np.array([modified_discounts(c) for c in self.counts_of_counts])
        self.discounts = np.array(discounts, np.float64)
        if self.discounts.shape != (levels, 3) or not ((self.discounts >= 0.0) & (self.discounts <= (1.0, 2.0, 3.0))).all():
            raise ValueError(f"discounts: {levels} orders, each with D1 in 0..1, D2 in 0..2 and D3 in 0..3")

    def _rows(self, k: int) -> np.ndarray:
        n = level_sizes(self.chain, k)[1]
        continued = self.chain.continued_at[k] >= 0
        at = int(self.chain.continued_at[k] if continued else self.chain.row_at[k])
        return (self.chain.continued if continued else self.chain.rows)[at : at + n]

    def discount_rows(self) -> list[dict[str, Any]]:
        """One row an order: {order, counts: "continued" or "plain", n1 .. n4: rows with that count, d1, d2, d3: the discounts}."""
        return [
            {
                "order": int(order),
                "counts": "continued" if self.chain.continued_at[k] >= 0 else "plain",
                **{f"n{r}": int(self.counts_of_counts[k, r]) for r in (1, 2, 3, 4)},
                **{f"d{r}": float(self.discounts[k, r - 1]) for r in (1, 2, 3)},
            }
            for k, order in enumerate(self.chain.param)
        ]

    def _restart(self) -> None:
        levels = self.chain.param.size
        padded = np.zeros((levels, 4))
        padded[:, 1:] = self.discounts
        self.state = State(new_place(levels), new_overlay(levels, 2, 2), padded)

    @property
    def n_bytes(self) -> int:
        return self.chain.continued.nbytes

    def _fill(self, out: np.ndarray) -> None:
        distribution(self.chain, self.state, out)

    def _run_symbols(self, symbols: np.ndarray, p: np.ndarray, guesses: np.ndarray, rows: np.ndarray, advice: np.ndarray) -> None:
        run(self.chain, self.state, symbols, p, guesses, rows, self._best_rare, self._scratch)
