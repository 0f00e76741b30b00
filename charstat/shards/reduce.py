"""One range of identities of one context, from the tables of all shards: their rows merged by (identity, symbol), counts added.

A row is one key of 64 bits, identity << 7 | symbol or identity << 24 | word id, and a count. Each shard's range is sorted already; ranges are
merged two by two, like a tournament: log2(shards) passes over the rows, 12 bytes each, all in memory. So a range is chosen to fit. Contexts
with fewer counts than the model will have go at once: now their counts are whole.

A part is a file: identities uint64 [n], starts uint32 [n + 1], rows uint32 [m], of words sums uint32 [m + 1]; starts and sums from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.ngram.contexts import Context, parse_context
from charstat.ngram.hashing import CHARS, SYMBOL_BITS, WORD_ID_BITS
from charstat.ngram.table import MAX_COUNT, ROW_MASK, identity_bits, pack_row, record_identity
from charstat.pruning.worth import TALLIED
from charstat.shards.count import open_job
from charstat.shards.files import digest_of, finished, read_array, write_file
from charstat.shards.words import NO_WORD
from charstat.storage import HEADER_BYTES
from charstat.verify import MAX_TOTAL

NO_IDS = np.empty(0, np.uint32)
BYTES_PER_ROW = 32  # what a merge takes at its peak, for each row of all shards (measured: 27)
U1 = np.uint64(1)


class Part(NamedTuple):
    """A range of a context's identities, reduced: a file, how many contexts and rows are in it, and what there was before the cut."""

    file: str
    contexts: int
    rows: int
    counted: int  # words; 0 for characters
    whole: list[list[int]]  # tallies of all contexts, and of all rows: pruning.levels.Whole


@njit(cache=True, nogil=True)
def _expand(buckets, records, rows, sums, bits, start_bits, width, shift, first_bucket, lowest, highest, ids, keys, counts):
    """The keys and counts of the contexts with identities lowest..highest; returns how many. buckets, records, rows, sums: slices of a table,
    the first bucket being number first_bucket. ids: of words, new ones; rows with NO_WORD are left out."""
    start_mask = (U1 << np.uint64(start_bits)) - U1
    s = np.uint64(shift)
    record_at, row_at = np.int64(buckets[0]), np.int64(records[0] & start_mask)
    m = 0
    for b in range(buckets.shape[0] - 1):
        for r in range(np.int64(buckets[b]) - record_at, np.int64(buckets[b + 1]) - record_at):
            identity = record_identity(first_bucket + b, records[r], width, bits, start_bits)
            if identity < lowest or identity > highest:
                continue
            head = identity << s
            for i in range(np.int64(records[r] & start_mask) - row_at, np.int64(records[r + 1] & start_mask) - row_at):
                row = rows[i]
                if sums.shape[0] == 0:
                    keys[m] = head | np.uint64(row & ROW_MASK)
                    counts[m] = row >> np.uint32(SYMBOL_BITS)
                else:
                    word = ids[row]
                    if word == NO_WORD:
                        continue
                    keys[m] = head | np.uint64(word)
                    counts[m] = sums[i + 1] - sums[i]
                m += 1
    return m


@njit(cache=True, nogil=True)
def _merge(a, a_counts, b, b_counts, most, keys, counts):
    """Two rising lists of distinct keys as one, counts added, up to `most`; returns how many.

    No branch depends on which key is smaller: processors cannot guess it, and would lose twice the time.
    """
    i = j = n = np.int64(0)
    while i < a.shape[0] and j < b.shape[0]:
        x, y = a[i], b[j]
        from_a, from_b = np.int64(x <= y), np.int64(y <= x)
        keys[n] = min(x, y)
        counts[n] = np.uint32(min(from_a * np.int64(a_counts[i]) + from_b * np.int64(b_counts[j]), most))
        i += from_a
        j += from_b
        n += 1
    while i < a.shape[0]:
        keys[n], counts[n] = a[i], a_counts[i]
        i += 1
        n += 1
    while j < b.shape[0]:
        keys[n], counts[n] = b[j], b_counts[j]
        j += 1
        n += 1
    return n


@njit(cache=True, nogil=True)
def _count_contexts(keys, shift):
    s = np.uint64(shift)
    n = 0
    for i in range(keys.shape[0]):
        if i == 0 or (keys[i] >> s) != (keys[i - 1] >> s):
            n += 1
    return n


@njit(cache=True, nogil=True)
def _keep(keys, counts, shift, least, contexts, rows):
    """Move the rows of contexts with `least` counts or more to the front; returns how many they are. contexts, rows: get one more at every
    context's total and every row's count, up to the last."""
    s, last = np.uint64(shift), np.int64(rows.shape[0] - 1)
    i = m = np.int64(0)
    while i < keys.shape[0]:
        j, total = i, np.int64(0)
        while j < keys.shape[0] and (keys[j] >> s) == (keys[i] >> s):
            total += np.int64(counts[j])
            rows[min(np.int64(counts[j]), last)] += 1
            j += 1
        contexts[min(total, last)] += 1
        if total >= least:
            for k in range(i, j):
                keys[m], counts[m] = keys[k], counts[k]
                m += 1
        i = j
    return m


@njit(cache=True, nogil=True)
def _lay_out(keys, counts, shift, identities, starts, rows, sums):
    """A table's contexts and rows from its keys; sums is empty for characters."""
    s = np.uint64(shift)
    mask = (U1 << s) - U1
    c = 0
    total = np.uint32(0)
    for i in range(keys.shape[0]):
        if i == 0 or (keys[i] >> s) != (keys[i - 1] >> s):
            identities[c] = keys[i] >> s
            starts[c] = np.uint32(i)
            c += 1
        if sums.shape[0] == 0:
            rows[i] = pack_row(keys[i] & mask, counts[i])
        else:
            rows[i] = np.uint32(keys[i] & mask)
            sums[i] = total
            total += counts[i]
    starts[c] = np.uint32(keys.shape[0])
    if sums.shape[0] > 0:
        sums[keys.shape[0]] = total


def shift_of(context: Context) -> int:
    """How many bits of a key stand for the symbol or the word."""
    return WORD_ID_BITS if context.is_words else SYMBOL_BITS


def shard_rows(
    folder: Path, shard: str, context: Context, e: dict, ids: str | None, part: int, part_bits: int
) -> tuple[np.ndarray, np.ndarray]:
    """(keys, counts) of one shard's contexts whose identities start with the bits `part`. e: the table's entry in the shard's manifest."""
    width = identity_bits(context)
    lowest, highest = part << (width - part_bits), ((part + 1) << (width - part_bits)) - 1
    low_bits = width - e["bits"]
    first, last = lowest >> low_bits, highest >> low_bits

    def read(column: str, dtype: type, at: int, size: int) -> np.ndarray:
        return read_array(folder / shard / f"{column}.npy", dtype, HEADER_BYTES + at * np.dtype(dtype).itemsize, size)

    buckets = read("buckets", np.uint32, e["bucket_at"] + first, last - first + 2)
    record_at, n = int(buckets[0]), int(buckets[-1]) - int(buckets[0])
    records = read("records", np.uint64, e["record_at"] + record_at, n + 1)
    mask = (1 << e["start_bits"]) - 1
    row_at, m = int(records[0]) & mask, (int(records[-1]) & mask) - (int(records[0]) & mask)
    rows = read("rows", np.uint32, e["row_at"] + row_at, m)
    sums = read("sums", np.uint32, e["sum_at"] + row_at, m + 1) if context.is_words else NO_IDS
    new_ids = NO_IDS if ids is None else np.fromfile(folder / ids, np.uint32)
    keys, counts = np.empty(m, np.uint64), np.empty(m, np.uint32)
    m = _expand(
        buckets, records, rows, sums, e["bits"], e["start_bits"], width, shift_of(context), first, np.uint64(lowest), np.uint64(highest),
        new_ids, keys, counts,
    )  # fmt: skip
    return keys[:m], counts[:m]


def merged(runs: list[tuple[np.ndarray, np.ndarray]], most: int) -> tuple[np.ndarray, np.ndarray]:
    """(keys, counts) of sorted runs as one; the list is emptied on the way."""
    while len(runs) > 1:
        longer = []
        while runs:
            a = runs.pop()
            if not runs:
                longer.append(a)
                break
            b = runs.pop()
            n = a[0].size + b[0].size
            keys, counts = np.empty(n, np.uint64), np.empty(n, np.uint32)
            n = _merge(*a, *b, most, keys, counts)
            longer.append((keys[:n], counts[:n]))
            del a, b
        runs = longer
    return runs[0]


def reduce_part(
    folder: Path, name: str, context_name: str, part: int, part_bits: int, shards: Sequence[tuple[str, dict, str | None]]
) -> Part:
    """Merge the range of the identities that start with the bits `part`, without contexts of fewer counts than the job's min_count. shards:
    (directory, the table's entry, word ids) of each."""
    job, context = open_job(folder, name), parse_context(context_name)
    least = 1 if context.kind == CHARS and context.param == 0 else job.min_count  # every stream falls back on order 0
    path, key = folder / f"{context_name}-{part:04}.part", digest_of([job.key, context_name, part, part_bits, least, list(shards)])
    done = finished(path, key)
    if done is not None:
        return Part(*done)
    most = MAX_TOTAL if context.is_words else MAX_COUNT
    keys, counts = merged([shard_rows(folder, shard, context, e, ids, part, part_bits) for shard, e, ids in shards], most)
    shift, whole = shift_of(context), np.zeros((2, TALLIED), np.int64)
    m = _keep(keys, counts, shift, least, *whole)
    keys, counts = keys[:m], counts[:m]
    n = _count_contexts(keys, shift)
    identities, starts, rows = np.empty(n, np.uint64), np.empty(n + 1, np.uint32), np.empty(m, np.uint32)
    sums = np.empty(m + 1, np.uint32) if context.is_words else NO_IDS
    _lay_out(keys, counts, shift, identities, starts, rows, sums)
    counted = int(counts.sum(dtype=np.int64)) if context.is_words else 0
    del keys, counts
    found = Part(path.name, n, m, counted, whole.tolist())
    write_file(path, [identities, starts, rows, sums], key, lambda: list(found))
    return found


def part_bits_of(context: Context, entries: Sequence[dict], row_budget: int) -> int:
    """How many bits the parts of a context are told apart by: so many that the rows of all shards in a part are row_budget or fewer.

    Never more than the buckets of the whole table have: a part is whole buckets.
    """
    rows, most = sum(e["rows"] for e in entries), max(e["contexts"] for e in entries)
    wanted = max(0, (rows + rows // 8 - 1) // max(1, row_budget)).bit_length()
    return min(wanted, max(0, most.bit_length() - 2), 12)
