"""What the sources say: counts under the nodes of the code tree, as integers.

    path_masses    s.mass: counts under the nodes of one symbol's path
    tree_masses    s.tree_mass: counts under all nodes

Both ways give the same integers, so that one path and the whole tree yield the same probabilities, bit for bit. Sources:

    0..F     static: what the tables counted, and how often the stream itself has seen the symbol, as if it went on counting
    F..2F    online: the overlay's fast counts for characters, its slow ones for words (what a text is about changes slowly)
"""

from __future__ import annotations

import numpy as np

from charstat.compiled import inlined, kernel
from charstat.mixers.state import ALL_WORDS, COUNT_SHIFT, END, LENGTH, LIST, PATH_SYMBOL, ROW_AT, START, SUM_AT, TREE_READY, TRIE_NODE
from charstat.ngram.overlay import entry_count, entry_seen, entry_symbol
from charstat.ngram.table import row_count, row_symbol
from charstat.ngram.words import NO_NODE, gallop, lower_bound
from charstat.tree import LEAF

NO_WORD = 1 << 40  # above every word id


@kernel
def fill_path(rows, pool, first_word, families, static_rows, online, shared, mass):
    """mass[d, k] := mass of character and online sources under the path's node d: int32 [depth + 1, 2F].

    shared: for every symbol, how many decisions it shares with the path.
    """
    n = families.shape[0]
    mass[:, :] = 0
    for f in range(n):
        if f < first_word:
            for r in range(static_rows[f, START], static_rows[f, END]):
                row = rows[r]
                mass[shared[row_symbol(row)], f] += np.int32(row_count(row))
        first, shift = online[f, LIST], families[f, COUNT_SHIFT]
        for e in range(first, first + online[f, LENGTH]):
            d = shared[entry_symbol(pool[e])]
            mass[d, f] += np.int32(entry_seen(pool[e]))
            mass[d, n + f] += np.int32(entry_count(pool[e], shift))
    for d in range(mass.shape[0] - 2, -1, -1):  # so far mass[d] is what leaves the path at d: add up from the leaf
        for k in range(mass.shape[1]):
            mass[d, k] += mass[d + 1, k]


@kernel
def fill_word_path(
    node,
    depth,
    path_node,
    path_bit,
    tree_mid,
    first_word,
    families,
    static_rows,
    next_rows,
    rows,
    sums,
    first_child,
    trie_symbol,
    first_id,
    mass,
):
    """Add the word contexts' static counts to what fill_path left: every decision splits the range of word ids that can still follow.

    next_rows := the rows of the words that go on with the path's symbol.
    """
    first, last = np.int64(first_child[node]), np.int64(first_child[node + 1])
    lowest = first
    n = families.shape[0]
    for f in range(first_word, n):
        lo, hi = static_rows[f, START], static_rows[f, END]
        next_rows[f, START], next_rows[f, END] = lo, hi
        if lo < hi:
            at = families[f, SUM_AT] - families[f, ROW_AT]
            mass[0, f] += np.int32(sums[at + hi] - sums[at + lo])
    for d in range(depth):
        split = lower_bound(trie_symbol, first, last, tree_mid[path_node[d]])
        boundary = np.int64(-1) if split == lowest else np.int64(first_id[split]) if split < last else np.int64(NO_WORD)
        one = path_bit[d]
        for f in range(first_word, n):
            lo, hi = next_rows[f, START], next_rows[f, END]
            if lo >= hi:
                continue
            if families[f, ALL_WORDS]:  # no need to search
                middle = min(max(families[f, ROW_AT] + boundary, lo), hi)
            else:
                middle = lower_bound(rows, lo, hi, boundary)
            if one:
                lo = middle
            else:
                hi = middle
            next_rows[f, START], next_rows[f, END] = lo, hi
            if lo < hi:
                at = families[f, SUM_AT] - families[f, ROW_AT]
                mass[d + 1, f] += np.int32(sums[at + hi] - sums[at + lo])
        if one:
            first = split
        else:
            last = split


@inlined
def path_masses(fixed, s, symbol):
    """s.mass[d, k] := mass of source k under node d of the symbol's path (the leaf is the last)."""
    t, tree, mass = fixed.tables, fixed.tree, s.mass
    depth = tree.depth[symbol]
    if s.cursor[TREE_READY]:
        for d in range(depth + 1):
            v = tree.path_node[symbol, d]
            for k in range(mass.shape[1]):  # subtle: as in kernels.distribution, no assignment of arrays
                mass[d, k] = s.tree_mass[v, k]
        return
    first_word = fixed.chains.first_word
    fill_path(t.rows, s.overlay.pool, first_word, t.families, s.static_rows, s.online, tree.shared[symbol], mass[: depth + 1])
    node = s.cursor[TRIE_NODE]
    if node != NO_NODE:
        s.cursor[PATH_SYMBOL] = symbol
        fill_word_path(
            node, depth, tree.path_node[symbol], tree.path_bit[symbol], tree.mid, first_word, t.families, s.static_rows, s.next_rows,
            t.rows, t.sums, t.first_child, t.trie_symbol, t.first_id, mass,
        )  # fmt: skip


@kernel
def fill_leaves(rows, pool, first_word, families, static_rows, online, leaves):
    """leaves[symbol, k] := count of a symbol in the character and online sources: int32 [SYMBOLS, 2F]."""
    n = families.shape[0]
    leaves[:, :] = 0
    for f in range(n):
        if f < first_word:
            for r in range(static_rows[f, START], static_rows[f, END]):
                row = rows[r]
                leaves[row_symbol(row), f] = np.int32(row_count(row))
        first, shift = online[f, LIST], families[f, COUNT_SHIFT]
        for e in range(first, first + online[f, LENGTH]):
            symbol = entry_symbol(pool[e])
            leaves[symbol, f] += np.int32(entry_seen(pool[e]))
            leaves[symbol, n + f] = np.int32(entry_count(pool[e], shift))


@kernel
def fill_word_leaves(node, first_word, families, static_rows, rows, sums, first_child, trie_symbol, first_id, leaves):
    """Add the word contexts' static counts to what fill_leaves left.

    A context's rows lie in the order of the trie node's children, that is of their symbols.
    """
    last = np.int64(first_child[node + 1])
    for f in range(first_word, families.shape[0]):
        at = families[f, SUM_AT] - families[f, ROW_AT]
        r, hi = static_rows[f, START], static_rows[f, END]
        child = np.int64(first_child[node])
        while r < hi:
            # The child that the row's word lies under: the last one whose first id is not above it.
            child = gallop(first_id, child, last, np.int64(rows[r]) + 1) - 1
            end = hi
            if child + 1 < last:
                wanted = np.int64(first_id[child + 1])
                end = families[f, ROW_AT] + wanted if families[f, ALL_WORDS] else gallop(rows, r, hi, wanted)
            leaves[np.int64(trie_symbol[child]), f] += np.int32(sums[at + end] - sums[at + r])
            r = end
            child += 1


@kernel
def add_up(mass, child):
    """Masses of all nodes from those of the leaves; children have higher numbers than their parents."""
    for v in range(child.shape[0] - 1, -1, -1):
        left, right = child[v, 0], child[v, 1]
        for k in range(mass.shape[1]):
            mass[v, k] = mass[left, k] + mass[right, k]


@inlined
def tree_masses(fixed, s):
    """s.tree_mass[v, k] := mass of source k under node v, or of leaf v - LEAF, for the whole tree."""
    if s.cursor[TREE_READY]:
        return
    t, leaves, first_word = fixed.tables, s.tree_mass[LEAF:], fixed.chains.first_word
    fill_leaves(t.rows, s.overlay.pool, first_word, t.families, s.static_rows, s.online, leaves)
    node = s.cursor[TRIE_NODE]
    if node != NO_NODE:
        fill_word_leaves(node, first_word, t.families, s.static_rows, t.rows, t.sums, t.first_child, t.trie_symbol, t.first_id, leaves)
    add_up(s.tree_mass, fixed.tree.child)
    s.cursor[TREE_READY] = 1
