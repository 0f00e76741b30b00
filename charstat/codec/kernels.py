"""The compiled loop of the codec: at every decision on a symbol's path, the mixture's probability goes to the arithmetic coder.

    masses      the counts of every source under the nodes of one path, as in masses.fill_path. The decoder guesses which path (what is
                most frequent in the longest context); where the text leaves it, the decoder guesses again, below that node. Word
                contexts need no guess: every decision narrows their ranges of rows, as in masses.fill_word_path
    decision    the mixture's own inputs, weights and last stage (mixers/kernels.py), from the same integers: the probability is score()'s
    code_bit    to bytes, or from bytes
    learn       as in the mixture's step

Only nodes on paths are looked at, in both directions, and both directions are one function: what the encoder computed, the decoder
computes again. A guess decides how soon, never what.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charstat.alphabet import CODE_POINTS, Alphabet
from charstat.codec.coder import ONE, code_bit, code_evenly, code_index
from charstat.compiled import inlined, kernel
from charstat.mixers.kernels import NOT_EVALUATED, PRUNE, fill_inputs, learn, split_masses
from charstat.mixers.last_stage import NOT_REFINED, REFINED_FROM, refine
from charstat.mixers.logistic import mix, squash
from charstat.mixers.lookups import advance, prepare
from charstat.mixers.masses import NO_WORD, fill_path
from charstat.mixers.state import (
    ALL_WORDS,
    END,
    EXPECTED_SYMBOL,
    LENGTH,
    LIST,
    MATCH_BUCKET,
    PATH_SYMBOL,
    ROW_AT,
    START,
    SUM_AT,
    TRIE_NODE,
    Stream,
)
from charstat.ngram.match import observe_symbol
from charstat.ngram.overlay import FAST, UNIT_BITS, entry_count, entry_symbol
from charstat.ngram.table import row_count, row_symbol
from charstat.ngram.words import NO_NODE, lower_bound
from charstat.tree import ESCAPE, LEAF, SYMBOLS


class CharacterCode(NamedTuple):
    """Code points <-> symbols, and the code of the rare characters: P(char | escape) of alphabet.py, as integers."""

    own: np.ndarray  # uint32 [SYMBOLS]: code points of the symbols
    rare: np.ndarray  # uint32 [R]: code points of the rare characters seen in training, rising
    edges: np.ndarray  # int64 [R + 2]: their cumulative counts; the last step is for all others


class Scratch(NamedTuple):
    """How a decision splits the word contexts. F contexts."""

    middle: np.ndarray  # int64 [F]: their rows
    children: np.ndarray  # int64 [3]: the children of the trie's node that can follow: FIRST and LAST, and the one at the SPLIT


FIRST, LAST, SPLIT = range(3)  # of Scratch.children
ONLINE_WORTH = 10  # static counts, for a guess


def character_code(alphabet: Alphabet) -> CharacterCode:
    own = np.zeros(SYMBOLS, np.uint32)
    own[: alphabet.size] = [ord(c) for c in alphabet.chars]
    rare = np.array(sorted(map(ord, alphabet.rare)), np.uint32)
    counts = [alphabet.rare[chr(p)] for p in rare.tolist()]
    return CharacterCode(own, rare, np.cumsum([0, *counts, rare.size + 1], dtype=np.int64))


def new_scratch(stream: Stream) -> Scratch:
    return Scratch(np.zeros(stream.keys.size, np.int64), np.zeros(3, np.int64))


@kernel
def likely_symbol(lowest, end, expected, orders, static_rows, online, rows, pool):
    """A symbol in lowest .. end: the one that the match expects, or the most frequent one of the longest order that has any there."""
    if lowest <= expected < end:
        return expected
    for f in range(orders - 1, -1, -1):
        best, most = np.int64(-1), np.int64(0)
        for r in range(static_rows[f, START], static_rows[f, END]):
            symbol, count = row_symbol(rows[r]), np.int64(row_count(rows[r])) << UNIT_BITS
            if lowest <= symbol < end and count > most:
                best, most = symbol, count
        for e in range(online[f, LIST], online[f, LIST] + online[f, LENGTH]):
            symbol, count = entry_symbol(pool[e]), ONLINE_WORTH * entry_count(pool[e], FAST)
            if lowest <= symbol < end and count > most:
                best, most = symbol, count
        if best >= 0:
            return best
    return lowest


@kernel
def start_words(node, first_child, first_word, static_rows, next_rows, children):
    """Before the first decision: the rows of word contexts and the children in the trie that can follow."""
    children[FIRST], children[LAST] = np.int64(first_child[node]), np.int64(first_child[node + 1])
    for f in range(first_word, static_rows.shape[0]):
        next_rows[f, START], next_rows[f, END] = static_rows[f, START], static_rows[f, END]


@kernel
def split_words(
    node, mid, d, first_word, families, next_rows, rows, sums, first_child, trie_symbol, first_id, middle, children, mass, ones
):  # fmt: skip
    """Add the word contexts' static counts to mass[d] and ones, at a node that splits the symbols at mid."""
    split = lower_bound(trie_symbol, children[FIRST], children[LAST], mid)
    children[SPLIT] = split
    boundary = np.int64(NO_WORD)
    if split == np.int64(first_child[node]):
        boundary = np.int64(-1)
    elif split < children[LAST]:
        boundary = np.int64(first_id[split])
    for f in range(first_word, families.shape[0]):
        lo, hi = next_rows[f, START], next_rows[f, END]
        middle[f] = hi
        if lo >= hi:
            continue
        if families[f, ALL_WORDS]:  # no need to search
            middle[f] = min(max(families[f, ROW_AT] + boundary, lo), hi)
        else:
            middle[f] = lower_bound(rows, lo, hi, boundary)
        at = families[f, SUM_AT] - families[f, ROW_AT]
        mass[d, f] += np.int32(sums[at + hi] - sums[at + lo])
        ones[f] += np.int32(sums[at + hi] - sums[at + middle[f]])


@kernel
def narrow_words(bit, first_word, next_rows, middle, children):
    """After a decision: the rows and children that can still follow."""
    children[FIRST if bit else LAST] = children[SPLIT]
    side = START if bit else END
    for f in range(first_word, next_rows.shape[0]):
        next_rows[f, side] = middle[f]


@inlined
def code_symbol(fixed, s, coder, scratch, decode, symbol):
    """Code one symbol (returned) with P(symbol); leaves inputs, weights and states of its decisions for `learn`."""
    prepare(fixed, s)
    tree, columns, chains, tables = fixed.tree, fixed.columns, fixed.chains, fixed.tables
    mass, ones, x, w, states, bins, base, path_p, experts = s.mass, s.ones, s.x, s.w, s.states, s.bins, s.base, s.path_p, s.experts
    ratio_bins, count_states, online_states = fixed.ratio_bins, fixed.count_states, fixed.online_states
    weights, logits, match_logits, match_states, shares = s.mixer.weights, s.mixer.logits, s.mixer.match, s.match_states, s.shares
    child, lowest, mid, end, leaf_share, path_bit = tree.child, tree.lowest, tree.mid, tree.end, tree.leaf_share, tree.path_bit
    families, rows, sums, pool = tables.families, tables.rows, tables.sums, s.overlay.pool
    first_child, trie_symbol, first_id = tables.first_child, tables.trie_symbol, tables.first_id
    static_rows, next_rows, online, middle, children = s.static_rows, s.next_rows, s.online, scratch.middle, scratch.children
    map_rows, maps, points, parts, partial = s.map_rows, s.mixer.maps, s.points, s.parts, s.partial
    state, data = coder.state, coder.data
    cursor = s.cursor
    expected, match_bucket, node = cursor[EXPECTED_SYMBOL], cursor[MATCH_BUCKET], cursor[TRIE_NODE]
    first_word, orders = chains.first_word, chains.orders_end
    if node != NO_NODE:
        start_words(node, first_child, first_word, static_rows, next_rows, children)
    v, d, reach = np.int64(0), 0, 1.0
    path, filled = symbol, False
    while v < LEAF:
        if not filled:
            if decode:
                path = likely_symbol(lowest[v], end[v], expected, orders, static_rows, online, rows, pool)
            fill_path(rows, pool, first_word, families, static_rows, online, tree.shared[path], mass[: tree.depth[path] + 1])
        split_masses(mass, d, path_bit[path, d], ones)
        if node != NO_NODE:
            split_words(
                node, mid[v], d, first_word, families, next_rows, rows, sums, first_child, trie_symbol, first_id, middle, children,
                mass, ones,
            )  # fmt: skip
        if reach < PRUNE:
            p = leaf_share[v]
            path_p[d] = NOT_EVALUATED
        else:
            fill_inputs(
                v, mass, d, ones, x, d, columns, states, bins, ratio_bins, count_states, online_states, logits,
                shares, chains, match_logits, match_states, expected, match_bucket, lowest, mid, end, experts,
            )  # fmt: skip
            p = squash(np.float64(mix(base, weights, v, x, w, d, partial)))
            path_p[d] = p
            parts[d] = NOT_REFINED
            if reach >= REFINED_FROM:
                p = refine(p, v, d, map_rows, maps, points, parts)
        bit = code_bit(state, data, decode, np.int64(symbol >= mid[v]), np.uint64(p * ONE))
        reach *= p if bit else 1.0 - p
        if node != NO_NODE:
            narrow_words(bit, first_word, next_rows, middle, children)
        filled = bit == np.int64(path_bit[path, d])
        v = child[v, bit]
        d += 1
    symbol = v - LEAF
    cursor[PATH_SYMBOL] = symbol
    return symbol


@kernel
def code_rare(state, data, rare, edges, decode, point):
    """Code the code point of a character without a symbol of its own. Arrays: a Coder's and a CharacterCode's."""
    seen = rare.shape[0]
    i = np.int64(np.searchsorted(rare, point))
    if i == seen or rare[i] != point:
        i = seen
    i = code_index(state, data, decode, edges, i)
    if i < seen:
        return rare[i]
    return np.uint32(code_evenly(state, data, decode, CODE_POINTS, np.int64(point)))


@kernel
def code_characters(fixed, s, coder, scratch, characters, decode, points, symbols):
    """Code characters one by one, learning from each. points, symbols: uint32 [n] and uint8 [n], read or filled."""
    for i in range(points.shape[0]):
        symbol = code_symbol(fixed, s, coder, scratch, decode, np.int64(symbols[i]))
        if symbol == ESCAPE:
            points[i] = code_rare(coder.state, coder.data, characters.rare, characters.edges, decode, points[i])
        elif decode:
            points[i] = characters.own[symbol]
        symbols[i] = np.uint8(symbol)
        learn(fixed, s, symbol)
        advance(fixed, s, symbol)
        observe_symbol(s.match, symbol, s.history[0])
        s.experts[:, :] = 0.0
