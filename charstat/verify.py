"""What the kernels rely on, checked: Model.load(verify="full") runs this over every value of every array.

Kernels look up without asking whether an index is in range. What a build writes is safe; a directory from
elsewhere has to be checked. Checksums cannot do that: whoever changes an array can change its checksum.

    buckets     rise, and end at the number of contexts; a context's identity belongs to its bucket, and identities rise
    records     first rows rise strictly from 0 to the number of rows: no context is empty
    rows        characters: symbols that the alphabet has, rising strictly within a context, with counts from 1, at most 2**31 - 1 in all
                words: ids of the vocabulary, rising strictly within a context
    sums        rise strictly from 0, to 2**31 - 1 at most
    the trie    children come after their parent, in the order of nodes, by strictly rising symbol; their ids divide their parent's range; a
                leaf is one word; no word is longer than packed words have room for
    betas       within 1 / BETA_MAX and BETA_MAX

One pass over memory, in spans that threads share; a damaged array ends it at the first bad value.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from charstat.ngram.hashing import WORDS
from charstat.ngram.table import CountTable, identity_bits
from charstat.ngram.words import PACK, PACKS, Vocabulary
from charstat.tree import ESCAPE, SYMBOLS

if TYPE_CHECKING:
    from charstat.tokens.table import TokenTable

SPAN_BUCKETS = 1 << 18  # some million contexts
SPAN_VALUES = 1 << 22
THREADS = 8
MAX_TOTAL = (1 << 31) - 1  # of the counts of a context: masses are int32
MAX_DEPTH = PACK * PACKS
BETA_MAX = 1e15  # that of ctw/weights.py (a test compares them), without loading all of CTW
U0, U1 = np.uint64(0), np.uint64(1)

OK, BUCKETS, STARTS, IDENTITIES, SYMBOL, ORDER, COUNT, SUMS = range(8)
WHAT = {
    BUCKETS: ("buckets", "a bucket that ends before it starts, or beyond the contexts"),
    STARTS: ("records", "a context that starts after the next one, or beyond the rows, or has no rows"),
    IDENTITIES: ("records", "identities that do not rise, or lie in another bucket's place"),
    SYMBOL: ("rows", "a symbol or word that does not exist"),
    ORDER: ("rows", "symbols or words of a context that do not rise"),
    COUNT: ("rows", "a count of 0, or counts that no text has"),
    SUMS: ("sums", "sums that do not rise"),
}


@njit(cache=True, nogil=True)
def _check_span(first, last, bits, start_bits, width, buckets, records, rows, used, words, is_words):
    """The contexts in the buckets first..last: (what is wrong, which context); (OK, -1) if nothing is."""
    s, low = np.uint64(start_bits), np.uint64(width - bits)
    start_mask = (U1 << s) - U1
    bucket_mask = (U1 << (np.uint64(64) - s - low)) - U1  # of the bucket's number, what the record repeats
    n, m = records.shape[0] - 1, rows.shape[0]
    for b in range(first, last):
        i, end = np.int64(buckets[b]), np.int64(buckets[b + 1])
        if end < i or end > n:
            return BUCKETS, i
        in_bucket = np.uint64(b) & bucket_mask
        before = U0
        fresh = True
        while i < end:
            identity = records[i] >> s
            if (identity >> low) != in_bucket or (identity <= before and not fresh):
                return IDENTITIES, i
            before = identity
            fresh = False
            r, r_end = np.int64(records[i] & start_mask), np.int64(records[i + 1] & start_mask)
            if r >= r_end or r_end > m or (i == 0 and r != 0):
                return STARTS, i
            last_symbol, total = np.int64(-1), np.int64(0)
            if is_words:
                while r < r_end:
                    word = np.int64(rows[r])
                    if word <= last_symbol:
                        return ORDER, i
                    last_symbol = word
                    r += 1
                if last_symbol >= words:
                    return SYMBOL, i
            else:
                while r < r_end:
                    symbol, count = np.int64(rows[r] & np.uint32(127)), np.int64(rows[r] >> np.uint32(7))
                    if symbol <= last_symbol:
                        return ORDER, i
                    if not used[symbol]:
                        return SYMBOL, i
                    if count == 0:
                        return COUNT, i
                    last_symbol = symbol
                    total += count
                    r += 1
                if total > MAX_TOTAL:
                    return COUNT, i
            i += 1
    return OK, np.int64(-1)


@njit(cache=True, nogil=True)
def _rises(values, first, last):
    """The first index from `first` on whose value is not below the next one, up to last; -1 if there is none."""
    for i in range(first, last):
        if values[i] >= values[i + 1]:
            return i
    return np.int64(-1)


@njit(cache=True, nogil=True)
def _outside(values, first, last, low, high):
    """The first index whose value is not from low to high (nan is not); -1 if there is none."""
    for i in range(first, last):
        if not (low <= values[i] <= high):
            return i
    return np.int64(-1)


@njit(cache=True, nogil=True)
def _bad_node(first_child, symbol, first_id, words, used, ends):
    """The first node of the trie that breaks its rules, -1 if none does. ends: scratch, uint32 [nodes]."""
    nodes = symbol.shape[0]
    if np.int64(first_child[0]) != min(1, nodes) or first_id[0] != np.uint32(0) or np.int64(first_child[nodes]) != nodes:
        return np.int64(0)
    ends[0] = np.uint32(words)
    depth, level_end = 0, np.int64(1)
    for v in range(nodes):
        if v == level_end:  # breadth first: the next level ends where the children of this one do
            depth += 1
            level_end = np.int64(first_child[v])  # the first node of the level below
            if depth > MAX_DEPTH:
                return v
        child, end = np.int64(first_child[v]), np.int64(first_child[v + 1])
        lo, hi = first_id[v], ends[v]
        if end < child or end > nodes or (child <= v and nodes > 1) or lo >= hi:
            return v
        if child == end:
            if hi - lo != np.uint32(1):
                return v
            continue
        if first_id[child] != lo:
            return v
        for c in range(child, end):
            if not used[symbol[c]] or (c > child and (symbol[c] <= symbol[c - 1] or first_id[c] <= first_id[c - 1])):
                return v
            ends[c] = first_id[c + 1] if c + 1 < end else hi
            if ends[c] > hi:
                return v
    return np.int64(-1)


def used_symbols(n: int) -> np.ndarray:
    """uint8 [256]: 1 for the symbols of an alphabet of n characters, and the escape."""
    used = np.zeros(2 * SYMBOLS, np.uint8)
    used[:n] = 1
    used[ESCAPE] = 1
    return used


def table_jobs(table: CountTable | TokenTable, width: int, is_words: bool, used: np.ndarray, words: int) -> Iterator[Callable[[], None]]:
    """What checks a table whose identities have `width` bits. is_words: its rows are whole ids below `words`, its counts in sums."""
    name = table.context.name

    def span(first: int, last: int) -> None:
        what, at = _check_span(
            first, last, table.bits, table.start_bits, width, table.buckets, table.records, table.rows, used, words, is_words
        )
        if what != OK:
            column, why = WHAT[what]
            raise ValueError(f"{column}.npy, table {name}, context {at:,}: {why}")

    def rise(first: int, last: int) -> None:
        if (at := _rises(table.sums, first, last)) >= 0:
            raise ValueError(f"sums.npy, table {name}, row {at:,}: {WHAT[SUMS][1]}")

    buckets = 1 << table.bits
    for first in range(0, buckets, SPAN_BUCKETS):
        yield lambda first=first: span(first, min(first + SPAN_BUCKETS, buckets))
    if table.sums is not None:
        if int(table.sums[0]) != 0 or int(table.sums[-1]) > MAX_TOTAL:
            raise ValueError(f"sums.npy, table {name}: sums that do not start at 0, or that no text has")
        for first in range(0, table.n_rows, SPAN_VALUES):
            yield lambda first=first: rise(first, min(first + SPAN_VALUES, table.n_rows))


def _table_jobs(table: CountTable, used: np.ndarray, words: int) -> Iterator[Callable[[], None]]:
    yield from table_jobs(table, identity_bits(table.context), table.context.kind == WORDS, used, words)


def _trie_job(vocabulary: Vocabulary, used: np.ndarray) -> Iterator[Callable[[], None]]:
    def trie() -> None:
        first_child, symbol, first_id, words = vocabulary
        if (v := _bad_node(first_child, symbol, first_id, words, used, np.empty(symbol.size, np.uint32))) >= 0:
            raise ValueError(f"the vocabulary's trie, node {v:,}: children, symbols or word ids that are not in order")

    if vocabulary.symbol.size:
        yield trie


def _beta_jobs(betas: np.ndarray) -> Iterator[Callable[[], None]]:
    low, high = 1.0 / BETA_MAX / 1.001, BETA_MAX * 1.001  # float32

    def span(first: int) -> None:
        if (at := _outside(betas, first, min(first + SPAN_VALUES, betas.size), low, high)) >= 0:
            raise ValueError(f"betas.npy, value {at:,}: no weight")

    for first in range(0, betas.size, SPAN_VALUES):
        yield lambda first=first: span(first)


def check_arrays(alphabet_size: int, vocabulary: Vocabulary, tables: Iterable[CountTable], betas: np.ndarray) -> None:
    """ValueError, naming the array, unless every value of a model's arrays is one that the kernels can trust."""
    used = used_symbols(alphabet_size)
    jobs = [*_trie_job(vocabulary, used), *_beta_jobs(betas)]
    for table in tables:
        jobs += _table_jobs(table, used, vocabulary.size)
    run_jobs(jobs)


def run_jobs(jobs: list[Callable[[], None]]) -> None:
    """Run jobs on all cores; the first error ends them."""
    if len(jobs) < 2 or (os.cpu_count() or 1) == 1:
        for job in jobs:
            job()
        return
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        try:
            for _ in pool.map(lambda job: job(), jobs):
                pass
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
