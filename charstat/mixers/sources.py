"""What the sources of the mixture know at a position: their counts, found once per character, as masses under tree nodes.

    prepare        look up every source's counts for the current history, and the mixer's selectors
    path_masses    s.mass: counts under the nodes of one symbol's path
    tree_masses    s.tree_mass: counts under all nodes
    advance        move the history on by one symbol

Masses are integers, so that both ways give the same numbers. Sources: static 0..F, online F..2F
(the overlay's fast counts for characters, its slow ones for words: what a text is about changes slowly).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from charstat.mixers.logistic import HIT_LEVELS, MATCH_LEVELS, WORD_PLACES, sum_rows
from charstat.mixers.state import (
    ALL_WORDS,
    BITS,
    BUCKET_AT,
    CLOCK,
    END_ID,
    EXPECTED,
    FIRST_ID,
    FOUND,
    FOUND_END,
    KIND,
    LENGTH_BUCKET,
    LIST,
    LIST_LENGTH,
    NEXT_ROW,
    NEXT_ROW_END,
    NEXT_SYMBOL,
    NO_MATCH,
    NODE,
    PARAM,
    PLACE,
    POSITION,
    PREPARED,
    REACH,
    RECORD_AT,
    ROW_AT,
    SLOT,
    SPEED,
    START_BITS,
    SUM_AT,
    TOUCHED,
    TREE_READY,
    WIDTH,
    WORD_ROW,
    WORD_ROW_END,
)
from charstat.ngram.hashing import CHARS, WORDS, char_identity, mix64, push_symbol, word_hash, word_identity
from charstat.ngram.match import expected_symbol, length_bucket
from charstat.ngram.overlay import MASK24, find_slot, slot_list
from charstat.ngram.table import find_context
from charstat.ngram.words import (
    FIRST_KIND,
    HASH,
    LAST_THREE,
    LENGTH,
    LOWER_HASH,
    MAX_WORD,
    NO_NODE,
    ROOT,
    extend_word,
    find_child,
    gallop,
    lower_bound,
    push_word,
    word_shape,
)
from charstat.tree import LEAF

U0, U1, U7, U127 = np.uint64(0), np.uint64(1), np.uint64(7), np.uint64(127)
ROW7, ROW127 = np.uint32(7), np.uint32(127)


@njit(cache=True, nogil=True)
def find_rows(families, identities, only_words, tables, buckets, records, rows, out, out_end):
    """Look up the word contexts' or the character contexts' rows into the columns out and out_end of families.

    Four passes over the families, one for each memory access of a lookup: in a pass the accesses of different families do not
    wait for each other (they miss the cache, each some 100 ns), in one pass for all they would.
    """
    n = tables.shape[0]
    for f in range(n):
        if (tables[f, KIND] == WORDS) == only_words:
            families[f, out] = tables[f, BUCKET_AT] + np.int64(identities[f] >> np.uint64(tables[f, WIDTH] - tables[f, BITS]))
    for f in range(n):
        if (tables[f, KIND] == WORDS) == only_words:
            families[f, out_end] = tables[f, RECORD_AT] + np.int64(buckets[families[f, out]])
    for f in range(n):
        if (tables[f, KIND] == WORDS) == only_words:
            families[f, TOUCHED] = np.int64(records[families[f, out_end]])
    for f in range(n):
        t = tables[f]
        if (t[KIND] == WORDS) == only_words:
            _, start, end = find_context(identities[f], t[WIDTH], t[BITS], t[START_BITS], buckets, t[BUCKET_AT], records, t[RECORD_AT])
            families[f, out], families[f, out_end] = t[ROW_AT] + start, t[ROW_AT] + end
    last = rows.shape[0] - 1
    for f in range(n if last >= 0 else 0):  # a text shorter than all contexts has no rows
        families[f, TOUCHED] = np.int64(rows[min(families[f, out], last)])


@njit(cache=True, nogil=True)
def start_word(at, families, identities, features, tables, buckets, records, rows, words):
    """At the start of a token: the whole vocabulary can follow; look up the rows of every word context."""
    at[NODE] = ROOT if words > 0 else NO_NODE
    at[FIRST_ID], at[END_ID] = 0, words
    if words > 0:
        for f in range(tables.shape[0]):
            if tables[f, KIND] == WORDS:
                identities[f] = word_identity(word_hash(tables[f, PARAM], features))
        find_rows(families, identities, True, tables, buckets, records, rows, WORD_ROW, WORD_ROW_END)


@njit(cache=True, nogil=True)
def continue_word(at, families, symbol, tables, rows, first_child, trie_symbol, first_id):
    """Inside a token: go down the trie, and narrow every word context's rows to the words that go on with the symbol."""
    node = at[NODE]
    if node == NO_NODE:
        return
    child = find_child(node, symbol, first_child, trie_symbol)
    last = np.int64(first_child[node + 1])
    if child == last or np.int64(trie_symbol[child]) != symbol or first_child[child] == first_child[child + 1]:
        at[NODE] = NO_NODE  # no word of the training text goes on like this, or all that do are known no further
        return
    first = np.int64(first_id[child])
    end = np.int64(first_id[child + 1]) if child + 1 < last else at[END_ID]
    at[NODE], at[FIRST_ID], at[END_ID] = child, first, end
    known = at[NEXT_SYMBOL] == symbol  # fill_word_path has been there
    for f in range(tables.shape[0]):
        lo, hi = families[f, WORD_ROW], families[f, WORD_ROW_END]
        if known:
            families[f, WORD_ROW], families[f, WORD_ROW_END] = families[f, NEXT_ROW], families[f, NEXT_ROW_END]
        elif lo < hi:
            lo = lower_bound(rows, lo, hi, first)
            families[f, WORD_ROW], families[f, WORD_ROW_END] = lo, lower_bound(rows, lo, hi, end)


@njit(cache=True, nogil=True, forceinline=True)
def enter_word(fixed, s):
    """start_word for a stream."""
    t = fixed.tables
    start_word(s.at, s.families, s.identities, s.features, t.families, t.buckets, t.records, t.rows, t.words)


@njit(cache=True, nogil=True)
def enter_text(fixed, s):
    """Before the first symbol."""
    enter_word(fixed, s)


@njit(cache=True, nogil=True, forceinline=True)
def advance(fixed, s, symbol):
    """Move the history on by one symbol: packed characters, the word, the trie node and the rows under its prefix."""
    at, word, info = s.at, s.word, fixed.info
    push_symbol(s.history, symbol, info.classes[symbol])
    at[POSITION] += 1
    at[CLOCK] += 1
    at[PREPARED] = at[TREE_READY] = 0
    if info.separator[symbol]:
        if word[LENGTH] > U0:
            length = min(word[LENGTH], np.uint64(MAX_WORD))
            shape = word_shape(length, word[FIRST_KIND], word[LAST_THREE])
            push_word(s.features, word[HASH], word[LOWER_HASH], shape, word[FIRST_KIND], word[LAST_THREE])
            word[:] = U0
        at[PLACE] = 0
        enter_word(fixed, s)
        return
    extend_word(word, symbol, info)
    at[PLACE] += 1
    t = fixed.tables
    continue_word(at, s.families, symbol, t.families, t.rows, t.first_child, t.trie_symbol, t.first_id)


@njit(cache=True, nogil=True)
def find_static(position, in_word, families, identities, keys, history, features, prefix, tables, buckets, records, rows, slots):
    """Rows and overlay key of every family; returns the longest character order with rows, plus 1."""
    mask = np.uint64(slots.shape[1] - 1)
    for f in range(tables.shape[0]):
        if tables[f, KIND] == WORDS:
            keys[f] = word_hash(tables[f, PARAM], features) ^ prefix
        else:
            identities[f] = char_identity(tables[f, KIND], tables[f, PARAM], history)
            keys[f] = mix64(identities[f] + U1) if position >= tables[f, REACH] else U0
    for f in range(tables.shape[0]):  # so that the overlay's slots are on their way from memory
        families[f, TOUCHED] = np.int64(slots[f, (keys[f] >> np.uint64(20)) & mask, 0])
    find_rows(families, identities, False, tables, buckets, records, rows, FOUND, FOUND_END)
    longest = 0
    for f in range(tables.shape[0]):
        if tables[f, KIND] == WORDS:
            families[f, FOUND] = families[f, WORD_ROW]
            families[f, FOUND_END] = families[f, WORD_ROW_END] if in_word else families[f, WORD_ROW]
        elif keys[f] == U0:
            families[f, FOUND_END] = families[f, FOUND]
        elif tables[f, KIND] == CHARS and families[f, FOUND_END] > families[f, FOUND]:
            longest = f + 1
    return longest


@njit(cache=True, nogil=True)
def find_online(families, keys, tables, slots, pool):
    """Overlay slot and list of every family; returns the longest character order with a list, plus 1."""
    longest = 0
    for f in range(tables.shape[0]):
        families[f, LIST] = families[f, LIST_LENGTH] = 0
        if keys[f] != U0:
            p = find_slot(slots, f, keys[f])
            families[f, SLOT] = p
            families[f, LIST], families[f, LIST_LENGTH] = slot_list(slots, f, p)
            if tables[f, KIND] == CHARS and families[f, LIST_LENGTH] > 0:
                longest = f + 1
    for f in range(tables.shape[0]):
        families[f, TOUCHED] = np.int64(pool[families[f, LIST]])
    return longest


@njit(cache=True, nogil=True)
def word_hits(families, tables):
    """How many word contexts have rows."""
    hits = 0
    for f in range(tables.shape[0]):
        hits += tables[f, KIND] == WORDS and families[f, FOUND_END] > families[f, FOUND]
    return hits


@njit(cache=True, nogil=True, forceinline=True)
def prepare(fixed, s):
    """Find the counts of all sources for the current history, and the mixer's selectors; nothing if that is done."""
    at = s.at
    if at[PREPARED]:
        return
    t, selected = fixed.tables, s.selected
    in_word = at[NODE] != NO_NODE
    prefix = mix64(s.word[HASH])
    slots, pool = s.overlay.slots, s.overlay.pool
    static_order = find_static(
        at[POSITION], in_word, s.families, s.identities, s.keys, s.history, s.features, prefix,
        t.families, t.buckets, t.records, t.rows, slots,
    )  # fmt: skip
    overlay_order = find_online(s.families, s.keys, t.families, slots, pool)
    at[EXPECTED] = np.int64(-1) if at[NO_MATCH] else expected_symbol(s.match)
    at[LENGTH_BUCKET] = length_bucket(s.match.state[2])
    place = min(at[PLACE], WORD_PLACES - 1)
    previous = np.int64(s.history[0] & np.uint64(127))
    rows = fixed.set_rows
    selected[1] = rows[0] + static_order * WORD_PLACES + place
    selected[2] = rows[1] + np.int64(fixed.info.kind[previous]) * WORD_PLACES + place
    selected[3] = rows[2] + overlay_order
    selected[4] = rows[3] + previous
    selected[5] = rows[4] + np.int64((s.history[0] >> U7) & np.uint64(127))
    hits = min(word_hits(s.families, t.families), HIT_LEVELS - 1)
    matched = 0 if at[EXPECTED] < 0 else 1 + min(at[LENGTH_BUCKET] // 3, MATCH_LEVELS - 2)
    selected[6] = rows[5] + hits * MATCH_LEVELS + matched
    sum_rows(s.mixer.weights, selected, s.base)
    at[NEXT_SYMBOL] = -1
    at[PREPARED] = 1


@njit(cache=True, nogil=True)
def fill_path(rows, pool, tables, families, shared, mass):
    """mass[d, k] := mass of character and overlay sources under the path's node d: int32 [depth + 1, 2F].

    shared: for every symbol, how many decisions it shares with the path.
    """
    n = tables.shape[0]
    mass[:, :] = 0
    for f in range(n):
        if tables[f, KIND] != WORDS:
            for r in range(families[f, FOUND], families[f, FOUND_END]):
                row = rows[r]
                mass[shared[row & ROW127], f] += np.int32(row >> ROW7)
        first, speed = families[f, LIST], np.uint64(tables[f, SPEED])
        for e in range(first, first + families[f, LIST_LENGTH]):
            mass[shared[pool[e] & U127], n + f] += np.int32((pool[e] >> speed) & MASK24)
    for d in range(mass.shape[0] - 2, -1, -1):  # so far mass[d] is what leaves the path at d: add up from the leaf
        for k in range(mass.shape[1]):
            mass[d, k] += mass[d + 1, k]


@njit(cache=True, nogil=True)
def fill_word_path(node, depth, path_node, path_bit, tree_mid, tables, families, rows, sums, first_child, trie_symbol, first_id, mass):
    """The word families' part of fill_path: every decision splits the range of word ids that can still follow."""
    first, last = np.int64(first_child[node]), np.int64(first_child[node + 1])
    lowest = first
    n = tables.shape[0]
    for f in range(n):
        lo, hi = families[f, FOUND], families[f, FOUND_END]
        if lo < hi:
            at = tables[f, SUM_AT] - tables[f, ROW_AT]
            if tables[f, KIND] == WORDS:
                mass[0, f] = np.int32(sums[at + hi] - sums[at + lo])
    for d in range(depth):
        split = lower_bound(trie_symbol, first, last, tree_mid[path_node[d]])
        boundary = np.int64(-1) if split == lowest else np.int64(first_id[split]) if split < last else np.int64(1 << 40)
        one = path_bit[d]
        for f in range(n):
            lo, hi = families[f, FOUND], families[f, FOUND_END]
            if tables[f, KIND] != WORDS or lo >= hi:
                continue
            if tables[f, ALL_WORDS]:  # no need to search
                middle = min(max(tables[f, ROW_AT] + boundary, lo), hi)
            else:
                middle = lower_bound(rows, lo, hi, boundary)
            if one:
                lo = middle
            else:
                hi = middle
            families[f, FOUND], families[f, FOUND_END] = lo, hi
            if lo < hi:
                at = tables[f, SUM_AT] - tables[f, ROW_AT]
                mass[d + 1, f] = np.int32(sums[at + hi] - sums[at + lo])
        if one:
            first = split
        else:
            last = split
    for f in range(n):  # the ranges were narrowed in place
        if tables[f, KIND] == WORDS:
            families[f, NEXT_ROW], families[f, NEXT_ROW_END] = families[f, FOUND], families[f, FOUND_END]
            families[f, FOUND], families[f, FOUND_END] = families[f, WORD_ROW], families[f, WORD_ROW_END]


@njit(cache=True, nogil=True, forceinline=True)
def path_masses(fixed, s, symbol):
    """s.mass[d, k] := mass of source k under node d of the symbol's path (the leaf is the last)."""
    t, tree, mass = fixed.tables, fixed.tree, s.mass
    depth = tree.depth[symbol]
    if s.at[TREE_READY]:
        for d in range(depth + 1):
            mass[d] = s.tree_mass[tree.path_node[symbol, d]]
        return
    fill_path(t.rows, s.overlay.pool, t.families, s.families, tree.shared[symbol], mass[: depth + 1])
    node = s.at[NODE]
    if node != NO_NODE:
        s.at[NEXT_SYMBOL] = symbol
        fill_word_path(
            node, depth, tree.path_node[symbol], tree.path_bit[symbol], tree.mid,
            t.families, s.families, t.rows, t.sums, t.first_child, t.trie_symbol, t.first_id, mass,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def fill_leaves(rows, pool, tables, families, leaves):
    """leaves[symbol, k] := count of a symbol in the character and overlay sources: int32 [SYMBOLS, 2F]."""
    n = tables.shape[0]
    leaves[:, :] = 0
    for f in range(n):
        if tables[f, KIND] != WORDS:
            for r in range(families[f, FOUND], families[f, FOUND_END]):
                row = rows[r]
                leaves[row & ROW127, f] = np.int32(row >> ROW7)
        first, speed = families[f, LIST], np.uint64(tables[f, SPEED])
        for e in range(first, first + families[f, LIST_LENGTH]):
            leaves[pool[e] & U127, n + f] = np.int32((pool[e] >> speed) & MASK24)


@njit(cache=True, nogil=True)
def fill_word_leaves(node, tables, families, rows, sums, first_child, trie_symbol, first_id, leaves):
    """The word families' leaves: a context's rows lie in the order of the trie node's children, that is of their symbols."""
    last = np.int64(first_child[node + 1])
    for f in range(tables.shape[0]):
        if tables[f, KIND] != WORDS:
            continue
        at = tables[f, SUM_AT] - tables[f, ROW_AT]
        r, hi = families[f, FOUND], families[f, FOUND_END]
        child = np.int64(first_child[node])
        while r < hi:
            # The child that the row's word lies under: the last one whose first id is not above it.
            child = gallop(first_id, child, last, np.int64(rows[r]) + 1) - 1
            end = hi
            if child + 1 < last:
                wanted = np.int64(first_id[child + 1])
                end = tables[f, ROW_AT] + wanted if tables[f, ALL_WORDS] else gallop(rows, r, hi, wanted)
            leaves[np.int64(trie_symbol[child]), f] = np.int32(sums[at + end] - sums[at + r])
            r = end
            child += 1


@njit(cache=True, nogil=True)
def add_up(mass, child):
    """Masses of all nodes from those of the leaves; children have higher numbers than their parents."""
    for v in range(child.shape[0] - 1, -1, -1):
        left, right = child[v, 0], child[v, 1]
        for k in range(mass.shape[1]):
            mass[v, k] = mass[left, k] + mass[right, k]


@njit(cache=True, nogil=True, forceinline=True)
def tree_masses(fixed, s):
    """s.tree_mass[v, k] := mass of source k under node v, or of leaf v - LEAF, for the whole tree."""
    if s.at[TREE_READY]:
        return
    t, leaves = fixed.tables, s.tree_mass[LEAF:]
    fill_leaves(t.rows, s.overlay.pool, t.families, s.families, leaves)
    node = s.at[NODE]
    if node != NO_NODE:
        fill_word_leaves(node, t.families, s.families, t.rows, t.sums, t.first_child, t.trie_symbol, t.first_id, leaves)
    add_up(s.tree_mass, fixed.tree.child)
    s.at[TREE_READY] = 1
