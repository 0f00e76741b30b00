"""Orders 0..8 from one sort: the (k+1)-grams of a text are run-lengths of the prefixes of its sorted 9-grams.

A 9-gram is packed with its oldest symbol highest (63 bits), so that a shorter n-gram at the same start is its prefix. Order k counts
the n-grams that end in a counted symbol: the windows that start in [n_history - k, n - k). The full windows start in
[n_history, n - 8); the short ones at both ends, at most 16, are added to each order one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numba import njit

from charstat.cpu.sorting import sorted_keys
from charstat.ngram.contexts import EXACT_ORDER, Context
from charstat.ngram.hashing import IDENTITY_BITS, SYMBOL_BITS, SYMBOL_MASK, SYMBOL_SHIFT, mix57
from charstat.ngram.table import MAX_COUNT, CountTable, assemble, pack_row

WINDOW = EXACT_ORDER + 1
WINDOW_MASK = np.uint64((1 << SYMBOL_BITS * WINDOW) - 1)


@njit(cache=True, nogil=True)
def _fill_windows(symbols, start, lo, hi, out):
    """Packed 9-grams that start at symbols[start + lo .. start + hi)."""
    key = np.uint64(0)
    for i in range(start + lo, start + lo + WINDOW - 1):
        key = (key << SYMBOL_SHIFT) | np.uint64(symbols[i])
    for i in range(lo, hi):
        key = ((key << SYMBOL_SHIFT) | np.uint64(symbols[start + i + WINDOW - 1])) & WINDOW_MASK
        out[i - lo] = key
    return hi - lo


@njit(cache=True, nogil=True)
def _distinct(keys, counts):
    """The distinct ones of sorted keys, in place, and their counts; returns how many."""
    m = 0
    i = 0
    n = keys.shape[0]
    while i < n:
        j = i + 1
        while j < n and keys[j] == keys[i]:
            j += 1
        keys[m] = keys[i]
        counts[m] = np.uint32(j - i)
        m += 1
        i = j
    return m


@njit(cache=True, nogil=True)
def _count_distinct(keys, shift):
    s = np.uint64(shift)
    m = 0
    for i in range(keys.shape[0]):
        if i == 0 or (keys[i] >> s) != (keys[i - 1] >> s):
            m += 1
    return m


@njit(cache=True, nogil=True)
def _shorten(keys, counts, out_keys, out_counts):
    """Drop the newest symbol of every n-gram; add the counts of n-grams that become equal."""
    m = -1
    for i in range(keys.shape[0]):
        key = keys[i] >> SYMBOL_SHIFT
        if i == 0 or key != out_keys[m]:
            m += 1
            out_keys[m] = key
            out_counts[m] = counts[i]
        else:
            out_counts[m] += counts[i]


def sorted_ngrams(symbols: np.ndarray, n_history: int, threads: int, budget_bytes: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The distinct full 9-grams that start at or after n_history, sorted (uint64), and their counts (uint32)."""
    n = max(0, symbols.size - (WINDOW - 1) - n_history)
    pieces = []
    for keys in sorted_keys(lambda lo, hi, out: _fill_windows(symbols, n_history, lo, hi, out), n, 63, threads, budget_bytes):
        counts = np.empty(_count_distinct(keys, 0), np.uint32)
        m = _distinct(keys, counts)
        pieces.append((keys[:m].copy(), counts))
        del keys
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate([p[0] for p in pieces]), np.concatenate([p[1] for p in pieces])


def short_windows(symbols: np.ndarray, n_history: int, order: int) -> np.ndarray:
    """The (order + 1)-grams that are no prefix of a full window: packed, sorted, with repeats (uint64)."""
    n = symbols.size
    starts = [*range(max(0, n_history - order), min(n_history, n - order)), *range(max(n_history, n - EXACT_ORDER), n - order)]
    packed = [sum(int(symbols[s + j]) << (SYMBOL_BITS * (order - j)) for j in range(order + 1)) for s in starts]
    return np.sort(np.array(packed, np.uint64))


def add_ngrams(keys: np.ndarray, counts: np.ndarray, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct sorted keys and counts, with a few more n-grams (sorted, with repeats) added."""
    extra, extra_counts = np.unique(more, return_counts=True)
    at = np.searchsorted(keys, extra)
    known = np.zeros(extra.size, bool)
    inside = at < keys.size
    known[inside] = keys[at[inside]] == extra[inside]
    counts = counts.copy()
    counts[at[known]] += extra_counts[known].astype(np.uint32)
    new = ~known
    if not new.any():
        return keys, counts
    return np.insert(keys, at[new], extra[new]), np.insert(counts, at[new], extra_counts[new].astype(np.uint32))


@njit(cache=True, nogil=True)
def _contexts_of(keys, contexts, starts):
    c = 0
    for i in range(keys.shape[0]):
        if i == 0 or (keys[i] >> SYMBOL_SHIFT) != (keys[i - 1] >> SYMBOL_SHIFT):
            contexts[c] = mix57(keys[i] >> SYMBOL_SHIFT)
            starts[c] = np.uint32(i)
            c += 1
    starts[c] = np.uint32(keys.shape[0])


@njit(cache=True, nogil=True)
def _by_identity(identities, bits, order):
    """order := the indices that sort the identities: a counting sort by the top bits, then insertion sorts."""
    shift = np.uint64(IDENTITY_BITS - bits)
    cursors = np.zeros((1 << bits) + 1, np.int64)
    n = identities.shape[0]
    for i in range(n):
        cursors[np.int64(identities[i] >> shift) + 1] += 1
    for b in range(1, cursors.shape[0]):
        cursors[b] += cursors[b - 1]
    for i in range(n):
        b = np.int64(identities[i] >> shift)
        order[cursors[b]] = np.uint32(i)
        cursors[b] += 1
    for b in range(1 << bits):
        lo = np.int64(0) if b == 0 else cursors[b - 1]
        for i in range(lo + 1, cursors[b]):
            moved = order[i]
            j = i
            while j > lo and identities[order[j - 1]] > identities[moved]:
                order[j] = order[j - 1]
                j -= 1
            order[j] = moved


@njit(cache=True, nogil=True)
def _permute(keys, counts, contexts, starts, order, max_count, identities, new_starts, rows):
    at = 0
    for c in range(order.shape[0]):
        old = np.int64(order[c])
        identities[c] = contexts[old]
        new_starts[c] = np.uint32(at)
        for i in range(np.int64(starts[old]), np.int64(starts[old + 1])):
            rows[at] = pack_row(keys[i] & SYMBOL_MASK, min(np.int64(counts[i]), max_count))
            at += 1
    new_starts[order.shape[0]] = np.uint32(at)


def exact_table(context: Context, keys: np.ndarray, counts: np.ndarray) -> CountTable:
    """The table of packed, sorted, distinct n-grams, with its contexts in the order of their identities."""
    n = _count_distinct(keys, SYMBOL_BITS)
    contexts, starts = np.empty(n, np.uint64), np.empty(n + 1, np.uint32)
    _contexts_of(keys, contexts, starts)
    order = np.empty(n, np.uint32)
    _by_identity(contexts, max(0, n.bit_length() - 1), order)
    identities, new_starts, rows = np.empty(n, np.uint64), np.empty(n + 1, np.uint32), np.empty(keys.size, np.uint32)
    _permute(keys, counts, contexts, starts, order, MAX_COUNT, identities, new_starts, rows)
    return assemble(context, identities, new_starts, rows)


def exact_tables(
    symbols: np.ndarray, n_history: int, contexts: list[Context], threads: int, budget_bytes: int | None
) -> Iterator[CountTable]:
    """The tables of character orders up to 8, highest first."""
    keys, counts = sorted_ngrams(symbols, n_history, threads, budget_bytes)
    wanted = {c.param: c for c in contexts}
    waiting: list[Future[CountTable]] = []
    with ThreadPoolExecutor(max(1, threads - 1)) as pool:  # the pool lays out a table while this thread shortens the next order
        for order in range(EXACT_ORDER, -1, -1):
            if order < EXACT_ORDER:
                m = _count_distinct(keys, SYMBOL_BITS)
                shorter, sums = np.empty(m, np.uint64), np.empty(m, np.uint32)
                _shorten(keys, counts, shorter, sums)
                keys, counts = shorter, sums
            if order in wanted:
                all_keys, all_counts = add_ngrams(keys, counts, short_windows(symbols, n_history, order))
                waiting.append(pool.submit(exact_table, wanted[order], all_keys, all_counts))
            while len(waiting) > (threads > 1):  # one thread: wait for it
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
