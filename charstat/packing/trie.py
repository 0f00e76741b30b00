"""The vocabulary's trie as decisions: for every node how many children it has, and their symbols; ids follow from the leaves."""

from __future__ import annotations

import numpy as np
from numba import njit

from charstat.codec.coder import AT, finish, new_decoder, new_encoder, with_room
from charstat.ngram.words import Vocabulary
from charstat.packing.numbers import ROOM, code_symbol, counters, has_room

START = 128  # in place of the symbol of the root, and of a child before the first


@njit(cache=True, nogil=True)
def _code_nodes(state, data, decode, first, first_child, symbol, by_symbol, by_before, by_parent, by_sibling):
    """Code the nodes first .. of a trie, in breadth-first order. Returns where it stopped, as tables.code_char_contexts does."""
    nodes = symbol.shape[0]
    for v in range(first, nodes):
        start = np.int64(first_child[v])
        if not decode and not has_room(state, data, 300):
            return v
        own = np.int64(symbol[v]) if v > 0 else START
        before = np.int64(first_child[v] - first_child[v - 1]) if v > 0 else 0
        n = code_symbol(state, data, decode, np.int64(first_child[v + 1]) - start, 8, by_symbol, own, by_before, before)
        if start + n > nodes or (start <= v and n > 0):
            return -1
        if decode:
            first_child[v + 1] = np.uint32(start + n)
        sibling = np.int64(-1)
        for c in range(start, start + n):
            s = code_symbol(state, data, decode, np.int64(symbol[c]), 7, by_parent, own, by_sibling, sibling + 1)
            if s <= sibling:
                return -1
            if decode:
                symbol[c] = np.uint8(s)
            sibling = s
    return nodes if np.int64(first_child[nodes]) == nodes else -1


@njit(cache=True, nogil=True)
def _fill_ids(first_child, first_id, leaves):
    """first_id of every node from the numbers of leaves under them. Returns how many words there are. leaves: scratch, int64 [nodes]."""
    nodes = first_id.shape[0]
    for v in range(nodes - 1, -1, -1):
        leaves[v] = 1 if first_child[v] == first_child[v + 1] else 0
        for c in range(np.int64(first_child[v]), np.int64(first_child[v + 1])):
            leaves[v] += leaves[c]
    first_id[0] = np.uint32(0)
    for v in range(nodes):
        at = np.int64(first_id[v])
        for c in range(np.int64(first_child[v]), np.int64(first_child[v + 1])):
            first_id[c] = np.uint32(at)
            at += leaves[c]
    return leaves[0]


def _fresh() -> tuple[np.ndarray, ...]:
    return counters(START + 1), counters(256), counters(START + 1), counters(START + 1)


def pack_trie(vocabulary: Vocabulary) -> bytes:
    """A vocabulary as bytes; none if it is empty."""
    if not vocabulary.symbol.size:
        return b""
    first_child, symbol = vocabulary.first_child.copy(), vocabulary.symbol.copy()  # decoding writes into them: they must be writable
    coder, trees, at = new_encoder(1 << 16), _fresh(), 0
    while at < vocabulary.symbol.size:
        coder = with_room(coder, int(coder.state[AT]) // 2 + 2 * ROOM + 128 * 300)
        at = _code_nodes(coder.state, coder.data, False, at, first_child, symbol, *trees)
    return finish(coder)


def unpack_trie(data: bytes, nodes: int, words: int) -> Vocabulary:
    """The vocabulary that pack_trie() packed. ValueError if the bytes hold no trie of so many nodes and words."""
    first_child, symbol, first_id = np.zeros(nodes + bool(nodes), np.uint32), np.zeros(nodes, np.uint8), np.zeros(nodes, np.uint32)
    found = 0
    if nodes:
        coder = new_decoder(data)
        first_child[0] = min(1, nodes)
        if _code_nodes(coder.state, coder.data, True, 0, first_child, symbol, *_fresh()) != nodes:
            raise ValueError("the packed vocabulary is damaged")
        found = _fill_ids(first_child, first_id, np.zeros(nodes, np.int64))
    if found != words:
        raise ValueError(f"the packed vocabulary has {found:,} words, not {words:,}")
    return Vocabulary(first_child, symbol, first_id, words)
