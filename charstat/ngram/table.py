"""Static count tables: sorted, immutable, memory-mappable; one for every context of a model.

Layout of a table, contexts sorted by identity:

    buckets  uint32 [2**bits + 1]   contexts whose identity starts with the bits b are records[buckets[b] : buckets[b + 1]]
    records  uint64 [contexts + 1]  low `start_bits`: the context's first row; above: the low bits of its identity (the check)
    rows     uint32 [rows]          characters: count << 7 | symbol, by symbol; the count saturates at 2**25 - 1 = 33,554,431
                                    words: word id, rising
    sums     uint32 [rows + 1]      words only: count of all rows before this one, so that a range of word ids costs two reads

The bucket and the check together give the whole identity: `bits` is always large enough for that. A lookup reads one
bucket, one or two records (8 bytes each, adjacent) and the rows of one context: three cache lines for a rare context.

    "abracadabra", order 1:  a -> b2 c1 d1   b -> r2   c -> a1   d -> a1   r -> a2      5 contexts, 7 rows
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from charstat.errors import MergeError
from charstat.ngram.contexts import Context
from charstat.ngram.hashing import IDENTITY_BITS, SYMBOL_BITS, SYMBOL_MASK, WORD_IDENTITY_BITS

MAX_COUNT = (1 << 25) - 1
ROW_SHIFT, ROW_MASK = np.uint32(SYMBOL_BITS), np.uint32(SYMBOL_MASK)
U1 = np.uint64(1)


@njit(cache=True, nogil=True, inline="always")
def row_symbol(row):
    """The symbol of a character row: int64."""
    return np.int64(row & ROW_MASK)


@njit(cache=True, nogil=True, inline="always")
def row_count(row):
    """The count of a character row: int64."""
    return np.int64(row >> ROW_SHIFT)


@njit(cache=True, nogil=True, inline="always")
def pack_row(symbol, count):
    """The character row of a symbol and its count, at most MAX_COUNT: uint32."""
    return (np.uint32(count) << ROW_SHIFT) | np.uint32(symbol)


def identity_bits(context: Context) -> int:
    """Width in bits of the context's identities."""
    return WORD_IDENTITY_BITS if context.is_words else IDENTITY_BITS


@dataclass(frozen=True)
class CountTable:
    """The counts of one context: see the layout at the top of this file. `sums` is None for character contexts."""

    context: Context
    bits: int
    start_bits: int
    buckets: np.ndarray
    records: np.ndarray
    rows: np.ndarray
    sums: np.ndarray | None = None

    @property
    def n_contexts(self) -> int:
        return self.records.size - 1

    @property
    def n_rows(self) -> int:
        return self.rows.size

    @property
    def n_bytes(self) -> int:
        return sum(a.nbytes for a in (self.buckets, self.records, self.rows, self.sums) if a is not None)

    def context_identities(self) -> np.ndarray:
        """The contexts' identities, rising: uint64 [n_contexts]."""
        out = np.empty(self.n_contexts, np.uint64)
        _identities(self.buckets, self.records, self.bits, self.start_bits, identity_bits(self.context), out)
        return out

    def starts(self) -> np.ndarray:
        """First row of every context, and the number of rows: uint32 [n_contexts + 1]."""
        return (self.records & np.uint64((1 << self.start_bits) - 1)).astype(np.uint32)

    def symbols(self) -> np.ndarray:
        """The symbol (characters) or word id (words) of every row: uint32 [n_rows]."""
        return self.rows if self.sums is not None else self.rows & ROW_MASK

    def counts(self) -> np.ndarray:
        """The count of every row: uint32 [n_rows]."""
        return np.diff(self.sums) if self.sums is not None else self.rows >> ROW_SHIFT

    def total(self) -> int:
        """The sum of all counts."""
        return int(self.sums[-1]) if self.sums is not None else _total(self.rows)


def table_bits(context: Context, contexts: int, rows: int) -> tuple[int, int]:
    """(bits, start_bits) of a table with these numbers of contexts and rows: see the layout at the top of this file."""
    start_bits = max(1, rows.bit_length())
    width = identity_bits(context)
    return min(width, max(0, contexts.bit_length() - 2, width + start_bits - 64)), start_bits


def assemble(context: Context, identities: np.ndarray, starts: np.ndarray, rows: np.ndarray, sums: np.ndarray | None = None) -> CountTable:
    """A table from its contexts in rising order. identities: uint64 [n], overwritten; starts: uint32 [n + 1]."""
    width = identity_bits(context)
    n = identities.size
    bits, start_bits = table_bits(context, n, int(rows.size))
    buckets = np.zeros((1 << bits) + 1, np.uint32)
    _fill_buckets(identities, width - bits, buckets)
    records = np.empty(n + 1, np.uint64)
    _fill_records(identities, starts, start_bits, records)
    return CountTable(context, bits, start_bits, buckets, records, rows, sums)


def empty_table(context: Context) -> CountTable:
    """The table of a context that was never seen: what assemble() makes of nothing, without a kernel."""
    bits, start_bits = table_bits(context, 0, 0)
    sums = np.zeros(1, np.uint32) if context.is_words else None
    return CountTable(context, bits, start_bits, np.zeros((1 << bits) + 1, np.uint32), np.zeros(1, np.uint64), np.empty(0, np.uint32), sums)


@njit(cache=True, nogil=True)
def _fill_buckets(identities, shift, buckets):
    s = np.uint64(shift)
    for i in range(identities.shape[0]):
        buckets[np.int64(identities[i] >> s) + 1] += np.uint32(1)
    for b in range(1, buckets.shape[0]):
        buckets[b] += buckets[b - 1]


@njit(cache=True, nogil=True)
def _fill_records(identities, starts, start_bits, records):
    n = identities.shape[0]
    s = np.uint64(start_bits)
    for i in range(n):
        records[i] = (identities[i] << s) | np.uint64(starts[i])
    records[n] = np.uint64(starts[n])


@njit(cache=True, nogil=True, inline="always")
def record_identity(bucket, record, width, bits, start_bits):
    """The identity of the context with this record in this bucket: uint64."""
    low = np.uint64(width - bits)
    return (np.uint64(bucket) << low) | ((record >> np.uint64(start_bits)) & ((U1 << low) - U1))


@njit(cache=True, nogil=True)
def _total(rows):
    total = np.int64(0)
    for r in range(rows.shape[0]):
        total += np.int64(rows[r] >> np.uint32(SYMBOL_BITS))
    return total


@njit(cache=True, nogil=True)
def _identities(buckets, records, bits, start_bits, width, out):
    for b in range(buckets.shape[0] - 1):
        for r in range(buckets[b], buckets[b + 1]):
            out[r] = record_identity(b, records[r], width, bits, start_bits)


@njit(cache=True, nogil=True, inline="always")
def bucket_of(identity, width, bits):
    """The bucket that an identity lies in: int64."""
    return np.int64(identity >> np.uint64(width - bits))


@njit(cache=True, nogil=True, inline="always")
def find_context(identity, width, bits, start_bits, buckets, bucket_at, records, record_at):
    """(index, first row, end of rows) of a context, relative to its table, all int64; (-1, 0, 0) if it was never seen.

    The table's buckets and records start at bucket_at and record_at of the arrays given.
    """
    b = bucket_at + bucket_of(identity, width, bits)
    s = np.uint64(start_bits)
    want = identity << s
    for i in range(np.int64(buckets[b]), np.int64(buckets[b + 1])):
        record = records[record_at + i]
        if ((record ^ want) >> s) == np.uint64(0):
            mask = (U1 << s) - U1
            return i, np.int64(record & mask), np.int64(records[record_at + i + 1] & mask)
    return np.int64(-1), np.int64(0), np.int64(0)


def merge_tables(a: CountTable, b: CountTable) -> CountTable:
    """The table with the counts of both added (same context; word ids of one vocabulary). MergeError if the contexts differ."""
    if a.context != b.context:
        raise MergeError(f"tables of different contexts: {a.context.name} and {b.context.name}")
    ia, ib = a.context_identities(), b.context_identities()
    words = a.sums is not None
    n, m = a.n_contexts + b.n_contexts, a.n_rows + b.n_rows
    identities, starts = np.empty(n, np.uint64), np.empty(n + 1, np.uint32)
    symbols, counts = np.empty(m, np.uint32), np.empty(m, np.uint64)
    n, m = _merge(ia, a.starts(), a.symbols(), a.counts(), ib, b.starts(), b.symbols(), b.counts(), identities, starts, symbols, counts)
    starts = starts[: n + 1].copy()
    if words:
        sums = np.zeros(m + 1, np.uint32)
        sums[1:] = np.cumsum(counts[:m])
        return assemble(a.context, identities[:n].copy(), starts, symbols[:m].copy(), sums)
    rows = (np.minimum(counts[:m], np.uint64(MAX_COUNT)).astype(np.uint32) << ROW_SHIFT) | symbols[:m]
    return assemble(a.context, identities[:n].copy(), starts, rows)


@njit(cache=True, nogil=True)
def _merge(ia, sa, ya, ca, ib, sb, yb, cb, identities, starts, symbols, counts):
    i = j = n = m = 0
    while i < ia.shape[0] or j < ib.shape[0]:
        take_a = j == ib.shape[0] or (i < ia.shape[0] and ia[i] <= ib[j])
        take_b = i == ia.shape[0] or (j < ib.shape[0] and ib[j] <= ia[i])
        identities[n] = ia[i] if take_a else ib[j]
        starts[n] = np.uint32(m)
        p = np.int64(sa[i]) if take_a else np.int64(0)
        p_end = np.int64(sa[i + 1]) if take_a else np.int64(0)
        q = np.int64(sb[j]) if take_b else np.int64(0)
        q_end = np.int64(sb[j + 1]) if take_b else np.int64(0)
        while p < p_end or q < q_end:
            from_a = q == q_end or (p < p_end and ya[p] <= yb[q])
            from_b = p == p_end or (q < q_end and yb[q] <= ya[p])
            total = np.uint64(0)
            if from_a:
                symbols[m] = ya[p]
                total += np.uint64(ca[p])
                p += 1
            if from_b:
                symbols[m] = yb[q]
                total += np.uint64(cb[q])
                q += 1
            counts[m] = total
            m += 1
        if take_a:
            i += 1
        if take_b:
            j += 1
        n += 1
    starts[n] = np.uint32(m)
    return n, m
