"""Count tables of token contexts, one for each: what followed a context and how often, sorted, immutable, memory-mappable.

    buckets  uint32 [2**bits + 1]    contexts whose identity starts with the bits b are records[buckets[b] : buckets[b + 1]]
    records  uint64 [contexts + 1]   low start_bits: the context's first row; above: the low bits of its identity, the check
    rows     uint16 [rows]           leaves (tree.py), rising within a context
    sums     uint32 [rows + 1]       count of all rows before this one: a range of leaves costs two searches and two reads

As in ngram/table.py, whose lookup these have, with ids of 16 bits. 6 bytes a row, 8 a context, and 1 to 2 for the buckets. The arrays are
the same whatever counted them: lay_out() works on those of NumPy and of CuPy.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from charstat.ngram.table import _merge, record_identity
from charstat.tokens.contexts import TokenContext


class TokenTable(NamedTuple):
    """The counts of one context. width: bits of its identities."""

    context: TokenContext
    width: int
    bits: int
    start_bits: int
    buckets: Any
    records: Any
    rows: Any
    sums: Any

    @property
    def n_contexts(self) -> int:
        return self.records.size - 1

    @property
    def n_rows(self) -> int:
        return self.rows.size

    @property
    def n_bytes(self) -> int:
        return sum(a.nbytes for a in (self.buckets, self.records, self.rows, self.sums))

    def identities(self) -> np.ndarray:
        """The contexts' identities, rising: uint64 [n_contexts]."""
        out = np.empty(self.n_contexts, np.uint64)
        _identities(self.buckets, self.records, self.bits, self.start_bits, self.width, out)
        return out

    def starts(self) -> np.ndarray:
        """First row of every context, and the number of rows: uint32 [n_contexts + 1]."""
        return (self.records & np.uint64((1 << self.start_bits) - 1)).astype(np.uint32)


def table_bits(width: int, contexts: int, rows: int) -> tuple[int, int]:
    """(bits, start_bits) of a table with these numbers of contexts and rows."""
    start_bits = max(1, rows.bit_length())
    return min(width, max(0, contexts.bit_length() - 2, width + start_bits - 64)), start_bits


def lay_out(xp: Any, context: TokenContext, width: int, identities: Any, starts: Any, rows: Any, sums: Any) -> TokenTable:
    """A table from the runs of sorted keys. identities: uint64 [n], rising; starts: uint32 [n + 1]; rows, sums: uint32."""
    bits, start_bits = table_bits(width, int(identities.size), int(rows.size))
    edges = xp.arange((1 << bits) + 1, dtype=np.uint64) << np.uint64(width - bits)
    buckets = xp.searchsorted(identities, edges).astype(np.uint32)
    records = starts.astype(np.uint64)
    records[:-1] |= identities << np.uint64(start_bits)
    return TokenTable(context, width, bits, start_bits, buckets, records, rows.astype(np.uint16), sums)


@njit(cache=True, nogil=True)
def _identities(buckets, records, bits, start_bits, width, out):
    for b in range(buckets.shape[0] - 1):
        for r in range(buckets[b], buckets[b + 1]):
            out[r] = record_identity(b, records[r], width, bits, start_bits)


def merge_token_tables(a: TokenTable, b: TokenTable) -> TokenTable:
    """The table with the counts of both added."""
    ia, ib = a.identities(), b.identities()
    n, m = a.n_contexts + b.n_contexts, a.n_rows + b.n_rows
    identities, starts = np.empty(n, np.uint64), np.empty(n + 1, np.uint32)
    leaves, counts = np.empty(m, np.uint32), np.empty(m, np.uint64)
    parts = [(i, t.starts(), t.rows.astype(np.uint32), np.diff(t.sums)) for i, t in ((ia, a), (ib, b))]
    n, m = _merge(*parts[0], *parts[1], identities, starts, leaves, counts)
    sums = np.zeros(m + 1, np.uint32)
    sums[1:] = np.cumsum(counts[:m])
    return lay_out(np, a.context, a.width, identities[:n], starts[: n + 1], leaves[:m], sums)
