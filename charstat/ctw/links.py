"""Parent links of a chain's contexts: which context of the next lower order present each one ends in.

    parents[i]   uint32 [contexts of the longer order]: index into the shorter order's table, its contexts sorted by identity

Up to order 8 an identity is a bijection of its context, so that the link follows from the table alone. Above, it is a hash: the
text is read again, and both orders' contexts are looked up at every position that was counted. Two contexts with the same hash
(expected: 0.02 such pairs among 78 million contexts) get the smaller of their two parents, unless two threads write both within
the same few nanoseconds: then the larger one may remain. All other links are written with one value only.

Tables are larger than the cache, and a lookup reads a bucket and a record, some 100 ns each. Lookups run BATCH at a time, all
buckets first, then all records, so that the cache misses of a batch overlap.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numba import njit

from charstat.ngram.contexts import EXACT_ORDER, MAX_ORDER
from charstat.ngram.hashing import CHARS, IDENTITY_BITS, char_identity, low_symbols, mix57, push_symbol, unmix57
from charstat.ngram.table import CountTable, bucket_of, find_context, record_identity

BATCH = 32
UNSET = np.uint32(0xFFFFFFFF)
U1 = np.uint64(1)


def is_exact(table: CountTable) -> bool:
    """Whether the identities of a character table give its contexts."""
    return table.context.param <= EXACT_ORDER


def parent_links(
    longer: CountTable, shorter: CountTable, symbols: np.ndarray, n_history: int, threads: int, out: np.ndarray | None = None
) -> np.ndarray:
    """The links of a table's contexts: uint32 [contexts]. symbols, n_history: the text both were counted from (not read up to order 8).
    out: where to write them, by default into memory.

    ValueError if a context is left without a link, because the tables were counted from another text.
    """
    parents = np.empty(longer.n_contexts, np.uint32) if out is None else out
    parents.fill(UNSET)
    if not parents.size:
        return parents
    sides = (
        longer.bits, longer.start_bits, longer.buckets, longer.records,
        shorter.bits, shorter.start_bits, shorter.buckets, shorter.records,
    )  # fmt: skip
    order, shorter_order = longer.context.param, shorter.context.param
    exact = is_exact(longer)
    first, end = (0, 1 << longer.bits) if exact else (max(n_history, order), max(n_history, order, symbols.size))
    edges = [first + (end - first) * t // threads for t in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [
            pool.submit(_exact_links, lo, hi, shorter_order, *sides, parents)
            if exact
            else pool.submit(_hashed_links, symbols, lo, hi, order, shorter_order, *sides, parents)
            for lo, hi in pairwise(edges)
        ]:
            done.result()
    if int(parents.max()) >= shorter.n_contexts:
        raise ValueError(
            f"contexts of {longer.context.name} that end in no context of {shorter.context.name}: the tables were counted from another text"
        )
    return parents


@njit(cache=True, nogil=True, inline="always")
def _index(identity, bits, start_bits, buckets, records):
    return find_context(identity, IDENTITY_BITS, bits, start_bits, buckets, 0, records, 0)[0]


@njit(cache=True, nogil=True)
def _exact_links(lo, hi, shorter_order, bits, start_bits, buckets, records, p_bits, p_start_bits, p_buckets, p_records, parents):
    """The links of the contexts in the buckets lo..hi, whose identities give the contexts themselves. p_: of the parents' table."""
    wanted, index, at = np.empty(BATCH, np.uint64), np.empty(BATCH, np.int64), np.empty(BATCH, np.int64)
    last = p_records.shape[0] - 1
    n, touched = 0, U1
    for b in range(lo, hi + 1):
        start, end = (np.int64(buckets[b]), np.int64(buckets[b + 1])) if b < hi else (np.int64(0), np.int64(0))
        for i in range(start, end):
            packed = unmix57(record_identity(b, records[i], IDENTITY_BITS, bits, start_bits))
            wanted[n], index[n] = mix57(low_symbols(packed, shorter_order)), i
            n += 1
            if n == BATCH:
                for j in range(n):
                    at[j] = np.int64(p_buckets[bucket_of(wanted[j], IDENTITY_BITS, p_bits)])
                for j in range(n):
                    touched ^= p_records[min(at[j], last)]
                for j in range(n):
                    parents[index[j]] = np.uint32(_index(wanted[j], p_bits, p_start_bits, p_buckets, p_records))
                n = 0
    for j in range(n):
        parents[index[j]] = np.uint32(_index(wanted[j], p_bits, p_start_bits, p_buckets, p_records))
    return touched  # subtle: returned, so that the compiler keeps the reads


@njit(cache=True, nogil=True)
def _hashed_links(
    symbols, lo, hi, order, shorter_order, bits, start_bits, buckets, records, p_bits, p_start_bits, p_buckets, p_records, parents
):
    """The links of the contexts before the positions lo..hi of the text. p_: of the parents' table."""
    history = np.zeros(5, np.uint64)
    for i in range(max(0, lo - MAX_ORDER), lo):
        push_symbol(history, symbols[i], 0)
    longer, shorter = np.empty(BATCH, np.uint64), np.empty(BATCH, np.uint64)
    at, p_at = np.empty(BATCH, np.int64), np.empty(BATCH, np.int64)
    last, p_last = parents.shape[0] - 1, p_records.shape[0] - 1
    touched = U1
    for first in range(lo, hi, BATCH):
        n = min(BATCH, hi - first)
        for j in range(n):
            longer[j] = char_identity(CHARS, order, history)
            shorter[j] = char_identity(CHARS, shorter_order, history)
            push_symbol(history, symbols[first + j], 0)
        for j in range(n):
            at[j] = np.int64(buckets[bucket_of(longer[j], IDENTITY_BITS, bits)])
            p_at[j] = np.int64(p_buckets[bucket_of(shorter[j], IDENTITY_BITS, p_bits)])
        for j in range(n):
            a = min(at[j], last)
            touched ^= records[a] ^ p_records[min(p_at[j], p_last)] ^ np.uint64(parents[a])
        for j in range(n):
            i = _index(longer[j], bits, start_bits, buckets, records)
            if i >= 0:
                parents[i] = min(parents[i], np.uint32(_index(shorter[j], p_bits, p_start_bits, p_buckets, p_records)))
    return touched
