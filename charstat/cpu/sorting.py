"""Sort n computed keys with one n-sized buffer: partition by the top bits, then sort every partition.

The keys are never stored unsorted: a `fill` callback computes the keys of a range of positions into a small buffer, once to
count how many fall into each partition and once to scatter them. If one buffer for all keys does not fit into memory, the
partitions are processed in groups that fit, with one pass over the text per group. Nothing has to be merged.

Threads run numba kernels and numpy sorts, which release the GIL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numba import njit

from charstat.ngram.table import pack_row

PARTITION_BITS = 12
CHUNK_KEYS = 1 << 18

Fill = Callable[[int, int, np.ndarray], int]
"""fill(lo, hi, out) writes the keys of positions lo..hi to out (uint64) and returns how many there are."""


@njit(cache=True, nogil=True)
def _tally(keys, n, shift, counts):
    s = np.uint64(shift)
    for i in range(n):
        counts[np.int64(keys[i] >> s)] += 1


@njit(cache=True, nogil=True)
def _scatter(keys, n, shift, lowest, highest, cursors, out):
    s = np.uint64(shift)
    for i in range(n):
        p = np.int64(keys[i] >> s)
        if lowest <= p < highest:
            out[cursors[p]] = keys[i]
            cursors[p] += 1


class _Threads:
    """The keys of n positions, spread over threads: every thread has a span of positions and processes it chunk by chunk."""

    def __init__(self, fill: Fill, n: int, shift: int, threads: int, pool: ThreadPoolExecutor):
        self.fill, self.shift, self.pool = fill, shift, pool
        self.spans = list(pairwise(n * t // threads for t in range(threads + 1)))

    def run(self, task: Callable[[int], None]) -> None:
        """task(t) on every thread."""
        for done in [self.pool.submit(task, t) for t in range(len(self.spans))]:
            done.result()

    def each_chunk(self, t: int, step: Callable[[np.ndarray, int], None]) -> None:
        """step(keys, how many) for the chunks of thread t."""
        lo, hi = self.spans[t]
        scratch = np.empty(min(CHUNK_KEYS, hi - lo), np.uint64)
        for at in range(lo, hi, CHUNK_KEYS):
            step(scratch, self.fill(at, min(at + CHUNK_KEYS, hi), scratch))

    def tally(self) -> np.ndarray:
        """Keys of every thread in every partition: int64 [threads, partitions]."""
        counts = np.zeros((len(self.spans), 1 << PARTITION_BITS), np.int64)
        self.run(lambda t: self.each_chunk(t, lambda keys, m: _tally(keys, m, self.shift, counts[t])))
        return counts

    def sorted_group(self, counts: np.ndarray, lowest: int, highest: int) -> np.ndarray:
        """The keys of the partitions lowest..highest, sorted."""
        group = counts[:, lowest:highest]
        sizes = group.sum(axis=0)
        ends = np.cumsum(sizes)
        starts = ends - sizes
        cursors = np.zeros_like(counts)
        cursors[:, lowest:highest] = starts + np.cumsum(group, axis=0) - group
        out = np.empty(int(sizes.sum()), np.uint64)

        def scatter(t: int) -> None:
            self.each_chunk(t, lambda keys, m: _scatter(keys, m, self.shift, lowest, highest, cursors[t], out))

        self.run(scatter)
        largest_first = np.argsort(-sizes, kind="stable").tolist()
        self.run(lambda t: _sort_parts(out, starts, ends, largest_first[t :: len(self.spans)]))
        return out


def sorted_keys(fill: Fill, n: int, key_bits: int, threads: int, budget_bytes: int | None = None) -> Iterator[np.ndarray]:
    """Yield all keys, sorted, as one array (uint64), or as several rising arrays of at most about budget_bytes each.

    Keys with the same top 12 bits are in the same array. The caller may overwrite the arrays.
    """
    with ThreadPoolExecutor(threads) as pool:
        work = _Threads(fill, n, key_bits - PARTITION_BITS, threads, pool)
        counts = work.tally()
        for lowest, highest in partition_groups(counts.sum(axis=0), budget_bytes):
            yield work.sorted_group(counts, lowest, highest)


def _sort_parts(keys: np.ndarray, starts: np.ndarray, ends: np.ndarray, parts: list[int]) -> None:
    for p in parts:
        if ends[p] - starts[p] > 1:
            keys[starts[p] : ends[p]].sort()


def partition_groups(sizes: np.ndarray, budget_bytes: int | None) -> list[tuple[int, int]]:
    """Split partitions 0..len(sizes) into consecutive groups [lo, hi) of at most budget_bytes of 8-byte keys where possible."""
    limit = sizes.sum() if budget_bytes is None else max(1, budget_bytes // 8)
    groups, lo, held = [], 0, 0
    for p, size in enumerate(sizes):
        if held and held + size > limit:
            groups.append((lo, p))
            lo, held = p, 0
        held += int(size)
    return [*groups, (lo, len(sizes))]


@njit(cache=True, nogil=True)
def _count_runs(keys, lo, hi, shift):
    """Distinct keys and distinct contexts (key >> shift) among keys[lo:hi]."""
    s = np.uint64(shift)
    rows = contexts = 0
    for i in range(lo, hi):
        if i == lo or keys[i] != keys[i - 1]:
            rows += 1
            if i == lo or (keys[i] >> s) != (keys[i - 1] >> s):
                contexts += 1
    return rows, contexts


@njit(cache=True, nogil=True)
def _write_runs(keys, lo, hi, shift, words, max_count, context_at, row_at, identities, starts, rows, sums):
    s = np.uint64(shift)
    mask = (np.uint64(1) << s) - np.uint64(1)
    r, c = row_at, context_at
    i = lo
    while i < hi:
        key = keys[i]
        if i == lo or (key >> s) != (keys[i - 1] >> s):
            identities[c] = key >> s
            starts[c] = np.uint32(r)
            c += 1
        j = i + 1
        while j < hi and keys[j] == key:
            j += 1
        if words:
            rows[r] = np.uint32(key & mask)
            sums[r] = np.uint32(i)
        else:
            rows[r] = pack_row(key & mask, min(j - i, max_count))
        r += 1
        i = j


def run_lengths(keys: np.ndarray, shift: int, words: bool, max_count: int, threads: int) -> tuple[np.ndarray, ...]:
    """(identities, starts, rows, sums) of sorted keys: the run-lengths, grouped by context = key >> shift (see ngram/table.py)."""
    edges = [0]
    for t in range(1, threads):
        at = max(edges[-1], keys.size * t // threads)
        if 0 < at < keys.size:  # move to the next context's first key
            context = int(keys[at - 1]) >> shift
            at = int(np.searchsorted(keys, np.uint64(min((context + 1) << shift, 2**64 - 1)), "left"))
            while at < keys.size and int(keys[at]) >> shift == context:  # only at the very last representable context
                at += 1
        edges.append(at)
    edges.append(keys.size)
    slices = list(pairwise(edges))
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda s: _count_runs(keys, s[0], s[1], shift), slices))
        n_rows, n_contexts = (sum(f[k] for f in found) for k in (0, 1))
        identities, starts = np.empty(n_contexts, np.uint64), np.empty(n_contexts + 1, np.uint32)
        rows, sums = np.empty(n_rows, np.uint32), np.empty(n_rows + 1 if words else 0, np.uint32)
        jobs, row_at, context_at = [], 0, 0
        for (lo, hi), (r, c) in zip(slices, found, strict=True):
            args = (keys, lo, hi, shift, words, max_count, context_at, row_at, identities, starts, rows, sums)
            jobs.append(pool.submit(_write_runs, *args))
            row_at, context_at = row_at + r, context_at + c
        for job in jobs:
            job.result()
    starts[n_contexts] = n_rows
    if words:
        sums[n_rows] = keys.size
    return identities, starts, rows, sums
