"""The tables of a model as one string of decisions each: contexts, how many rows they have, rows, counts.

    contexts    of character orders up to 8: sorted as text read backwards, so that neighbours begin alike: how much of the one before is
                kept, then the symbols that are not, each by the one or two after it in the text
                others: the differences of their identities, which are hashes
    rows        characters: symbols, by the last two characters and by the row before
                words: ranks by frequency, rising; their differences, by how many rows there are and by the difference before
    counts      by the number of rows, and by the count before

Each table has counters of its own, so that tables are coded and decoded side by side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.codec.coder import AT, finish, new_decoder, new_encoder, with_room
from charstat.ngram.contexts import Context
from charstat.ngram.hashing import CHARS, IDENTITY_BITS, SYMBOL_BITS, SYMBOL_MASK, mix57, unmix57
from charstat.ngram.table import MAX_COUNT, ROW_SHIFT, CountTable, assemble, identity_bits
from charstat.packing.numbers import ROOM, code_number, code_symbol, counters, floor_log2, has_room, open_counters

FIRST_ROOM = 1 << 16
SEVEN = np.uint64(SYMBOL_BITS)
MAX_TOTAL = (1 << 31) - 1
NONE = 128  # how many symbols there are, and what stands for none of them
SMALL = 64  # of _class()


class Counters(NamedTuple):
    """The counters of one table: uint16 [contexts, CLASSES], two rows of them for a context of numbers."""

    kept: np.ndarray  # how much of the context before is kept: always, and by the number of rows before
    pair: np.ndarray  # a context's symbol by the two after it
    after: np.ndarray  # by the one after it, or by the one that stood there before
    identity: np.ndarray  # a difference of identities
    size: np.ndarray  # number of rows: by the last character, by the number before
    row: np.ndarray  # a row: by the last two characters, or by the number of rows
    row_before: np.ndarray  # by the row before
    count: np.ndarray  # by the number of rows, by the count before
    open_identity: np.ndarray  # open bits: uint16 [OPEN_BITS]
    open_row: np.ndarray
    open_count: np.ndarray


def new_counters(exact: bool) -> Counters:
    pairs = NONE * NONE if exact else NONE
    return Counters(
        counters(1 + SMALL), counters(pairs), counters(2 * NONE + 1), counters(2), counters(2 * NONE), counters(pairs), counters(8 * NONE),
        counters(8 * NONE), open_counters(), open_counters(), open_counters(),
    )  # fmt: skip


@njit(cache=True, nogil=True, inline="always")
def _class(number):
    """A small class of a number, as context: 0 .. SMALL - 1."""
    if number < 4:
        return number
    e = floor_log2(number)
    return min(2 * e + ((number >> (e - 1)) & 1), SMALL - 1)


@njit(cache=True, nogil=True)
def _code_context(state, data, decode, i, order, keys, size_before, kept_by, pair, after):
    """Code context i of an exact order: 0; -1 if the keys do not rise. keys: uint64, the newest symbol highest."""
    before = keys[i - 1] if i > 0 else np.uint64(0)
    kept = np.int64(0)
    if not decode and i > 0:
        while kept < order and (before ^ keys[i]) >> (SEVEN * np.uint64(order - 1 - kept)) == np.uint64(0):
            kept += 1
    kept = code_symbol(state, data, decode, kept, 4, kept_by, 0, kept_by, 1 + min(size_before, SMALL - 1))
    if kept >= order or (i == 0 and kept > 0):
        return -1
    key = before >> (SEVEN * np.uint64(order - kept)) if kept > 0 else np.uint64(0)
    for j in range(kept, order):
        shift = SEVEN * np.uint64(order - 1 - j)
        newer, newer2 = np.int64(key & SYMBOL_MASK), np.int64((key >> SEVEN) & SYMBOL_MASK)
        stood = NONE + 1 + np.int64((before >> shift) & SYMBOL_MASK) if j == kept and i > 0 else newer
        symbol = np.int64((keys[i] >> shift) & SYMBOL_MASK)
        symbol = code_symbol(state, data, decode, symbol, 7, pair, newer * NONE + newer2, after, stood)
        key = (key << SEVEN) | np.uint64(symbol)
    if decode:
        if i > 0 and key <= before:
            return -1
        keys[i] = key
    return 0


@njit(cache=True, nogil=True)
def _code_identity(state, data, decode, i, width, keys, identity, open_bits):
    """Code context i of a table by its identity: 0; -1 if that is too large. keys: uint64, rising."""
    least = keys[i - 1] + np.uint64(1) if i > 0 else np.uint64(0)
    step = code_number(state, data, decode, np.int64(keys[i] - least), identity, 0, identity, 0, open_bits)
    if step < 0:
        return -1
    if decode:
        keys[i] = least + np.uint64(step)
        if keys[i] >> np.uint64(width):
            return -1
    return 0


@njit(cache=True, nogil=True)
def code_char_contexts(state, data, decode, i, order, width, keys, starts, symbols, counts, c):
    """Code the contexts i .. of a character table. Returns where it stopped: the number of contexts, or, encoding, where room ran out;
    -1 if what is decoded is no table. order: 0 for identities, else that of an exact order."""
    kept_by, pair, after, identity, size, row = c.kept, c.pair, c.after, c.identity, c.size, c.row
    row_before, by_count, open_identity, open_count = c.row_before, c.count, c.open_identity, c.open_count
    n, rows = keys.shape[0], symbols.shape[0]
    size_before = np.int64(starts[i]) - np.int64(starts[i - 1]) if i > 0 else np.int64(0)
    while i < n:
        start = np.int64(starts[i])
        if not decode and not has_room(state, data, 2 * (np.int64(starts[i + 1]) - start) + 16):
            return i
        newest = pair_at = np.int64(0)
        if order > 0:
            if _code_context(state, data, decode, i, order, keys, size_before, kept_by, pair, after) < 0:
                return -1
            newest = np.int64(keys[i] >> (SEVEN * np.uint64(order - 1)))
            pair_at = newest * NONE + (np.int64(keys[i] >> (SEVEN * np.uint64(order - 2))) & 127 if order > 1 else np.int64(0))
        elif _code_identity(state, data, decode, i, width, keys, identity, open_identity) < 0:
            return -1
        d = np.int64(starts[i + 1]) - start
        d = code_symbol(state, data, decode, d - 1, 7, size, newest, size, NONE + min(size_before, NONE - 1)) + 1
        size_before = d
        if start + d > rows:
            return -1
        if decode:
            starts[i + 1] = np.uint32(start + d)
        if order == 0:
            pair_at = d - 1
        before, count_before = np.int64(-1), np.int64(0)
        for r in range(start, start + d):
            symbol = np.int64(symbols[r])
            symbol = code_symbol(state, data, decode, symbol, 7, row, pair_at, row_before, before + 1 + (2 * NONE if d == 1 else 0))
            if decode:
                if symbol <= before:
                    return -1
                symbols[r] = np.uint32(symbol)
            before = symbol
            last = 4 * NONE + 2 * (count_before + (SMALL if r == start else 0))
            count = np.int64(counts[r]) - 1
            count = code_number(state, data, decode, count, by_count, 2 * d, by_count, last, open_count) + 1
            if decode:
                if count < 1 or count > MAX_COUNT:
                    return -1
                counts[r] = np.uint32(count)
            count_before = _class(count)
        i += 1
    return n if np.int64(starts[n]) == rows else -1


@njit(cache=True, nogil=True)
def code_word_contexts(state, data, decode, i, width, keys, starts, ranks, counts, words, c):
    """Code the contexts i .. of a word table. ranks: uint32 [rows], rising within a context. Returns as code_char_contexts does."""
    size, row, row_before, by_count, identity = c.size, c.row, c.row_before, c.count, c.identity
    open_identity, open_row, open_count = c.open_identity, c.open_row, c.open_count
    n, rows = keys.shape[0], ranks.shape[0]
    size_before = _class(np.int64(starts[i]) - np.int64(starts[i - 1])) if i > 0 else np.int64(0)
    while i < n:
        start = np.int64(starts[i])
        if not decode and not has_room(state, data, 2 * (np.int64(starts[i + 1]) - start) + 16):
            return i
        if _code_identity(state, data, decode, i, width, keys, identity, open_identity) < 0:
            return -1
        d = np.int64(starts[i + 1]) - start
        d = code_number(state, data, decode, d - 1, size, 0, size, NONE + 2 * size_before, open_row) + 1
        if d < 1 or start + d > rows:
            return -1
        if decode:
            starts[i + 1] = np.uint32(start + d)
        size_before = _class(d)
        before, step_before, count_before, total = np.int64(-1), np.int64(0), np.int64(0), np.int64(0)
        few = min(size_before, 31)
        for r in range(start, start + d):
            by_step = 2 * (SMALL * (1 + min(few, 5)) + step_before)
            step = np.int64(ranks[r]) - before - 1
            step = code_number(state, data, decode, step, row, 2 * (few + (32 if r == start else 0)), row_before, by_step, open_row)
            before += step + 1
            if step < 0 or before >= words:
                return -1
            step_before = _class(step)
            rank = min(_class(before) // 5, 7)
            last = 4 * NONE + 2 * (count_before + (SMALL if r == start else 0))
            count = np.int64(counts[r]) - 1
            count = code_number(state, data, decode, count, by_count, 2 * (8 * few + rank), by_count, last, open_count) + 1
            total += count
            if count < 1 or total > MAX_TOTAL:
                return -1
            if decode:
                ranks[r], counts[r] = np.uint32(before), np.uint32(count)
            count_before = _class(count)
        i += 1
    return n if np.int64(starts[n]) == rows else -1


@njit(cache=True, nogil=True)
def _turn(packed, order):
    out = np.uint64(0)
    for _ in range(order):
        out = (out << SEVEN) | (packed & SYMBOL_MASK)
        packed >>= SEVEN
    return out


@njit(cache=True, nogil=True)
def keys_of(identities, order):
    """The contexts of an exact order, the newest symbol highest: uint64."""
    out = np.empty(identities.shape[0], np.uint64)
    for i in range(out.shape[0]):
        out[i] = _turn(unmix57(identities[i]), order)
    return out


@njit(cache=True, nogil=True)
def identities_of(keys, order):
    """The inverse of keys_of()."""
    out = np.empty(keys.shape[0], np.uint64)
    for i in range(out.shape[0]):
        out[i] = mix57(_turn(keys[i], order))
    return out


@njit(cache=True, nogil=True)
def reorder(order, starts, values, counts, new_starts, new_values, new_counts):
    """The contexts in another order, with their rows."""
    at = np.int64(0)
    for i in range(order.shape[0]):
        old = order[i]
        new_starts[i] = np.uint32(at)
        for r in range(np.int64(starts[old]), np.int64(starts[old + 1])):
            new_values[at], new_counts[at] = values[r], counts[r]
            at += 1
    new_starts[order.shape[0]] = np.uint32(at)


@njit(cache=True, nogil=True)
def sort_rows(starts, values, counts):
    """Sort the rows of every context by their values, in place: insertion for few, else heaps of numpy's."""
    for i in range(starts.shape[0] - 1):
        first, end = np.int64(starts[i]), np.int64(starts[i + 1])
        if end - first > 24:
            order = np.argsort(values[first:end])
            sorted_values, sorted_counts = values[first:end][order], counts[first:end][order]
            for r in range(order.shape[0]):
                values[first + r], counts[first + r] = sorted_values[r], sorted_counts[r]
            continue
        for r in range(first + 1, end):
            value, count = values[r], counts[r]
            j = r
            while j > first and values[j - 1] > value:
                values[j], counts[j] = values[j - 1], counts[j - 1]
                j -= 1
            values[j], counts[j] = value, count


def _reordered(order: np.ndarray, starts: np.ndarray, values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    out = np.empty_like(starts), np.empty_like(values), np.empty_like(counts)
    reorder(order, starts, values, counts, *out)
    return out


def _exact_order(context: Context) -> int:
    return context.param if context.kind == CHARS and 0 < context.param * SYMBOL_BITS < IDENTITY_BITS else 0


def pack_table(table: CountTable, rank_of: np.ndarray) -> bytes:
    """A table as bytes. rank_of: uint32 [vocabulary], every word's rank by frequency."""
    starts, values, counts = table.starts(), table.symbols(), table.counts()
    order, width = _exact_order(table.context), identity_bits(table.context)
    keys = table.context_identities()
    c = new_counters(order > 0)
    coder = new_encoder(FIRST_ROOM)
    if table.context.is_words:
        values, counts = rank_of[values], counts.copy()
        sort_rows(starts, values, counts)
    elif order:
        keys = keys_of(keys, order)
        sorted_by = np.argsort(keys)
        keys = keys[sorted_by]
        starts, values, counts = _reordered(sorted_by, starts, values, counts)
    at, most = 0, int(np.diff(starts).max(initial=0))
    while at < table.n_contexts:
        coder = with_room(coder, int(coder.state[AT]) // 2 + ROOM + 128 * (2 * most + 32))
        if table.context.is_words:
            at = code_word_contexts(coder.state, coder.data, False, at, width, keys, starts, values, counts, rank_of.size, c)
        else:
            at = code_char_contexts(coder.state, coder.data, False, at, order, width, keys, starts, values, counts, c)
    return finish(coder)


def unpack_table(data: bytes, context: Context, contexts: int, rows: int, word_of: np.ndarray) -> CountTable:
    """The table that pack_table() packed. ValueError if the bytes hold none. word_of: uint32 [vocabulary], the word of every rank."""
    keys, starts = np.zeros(contexts, np.uint64), np.zeros(contexts + 1, np.uint32)
    values, counts = np.zeros(rows, np.uint32), np.zeros(rows, np.uint32)
    order, width = _exact_order(context), identity_bits(context)
    coder, c = new_decoder(data), new_counters(order > 0)
    if context.is_words:
        done = code_word_contexts(coder.state, coder.data, True, 0, width, keys, starts, values, counts, word_of.size, c)
    else:
        done = code_char_contexts(coder.state, coder.data, True, 0, order, width, keys, starts, values, counts, c)
    if done != contexts or (contexts == 0 and rows):
        raise ValueError(f"the packed table {context.name} is damaged")
    if context.is_words:
        values = word_of[values]
        sort_rows(starts, values, counts)
        sums = np.zeros(rows + 1, np.uint32)
        np.cumsum(counts, out=sums[1:])
        return assemble(context, keys, starts, values, sums)
    if order:
        keys = identities_of(keys, order)
        sorted_by = np.argsort(keys)
        keys = keys[sorted_by]
        starts, values, counts = _reordered(sorted_by, starts, values, counts)
    return assemble(context, keys, starts, (counts << ROW_SHIFT) | values)
