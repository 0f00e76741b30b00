"""The binary tree of a vocabulary: V leaves in an order, V - 1 nodes that split ranges of them by frequency.

    leaves      0 1 2 | 3 4 5 6         node 3 splits 0..7 at leaf 3: its left side is 0..3, its right side 3..7
                                        every inner border 1 .. V - 1 is the split of exactly one node, and names it

A token's code is the path from the root to its leaf, a bit at each node: 1 is the right side. Splitting every range where both sides
have about the same weight makes a path about as long as the token's surprise, log2(1 / frequency): 9.6 decisions a token at 2,048
tokens of English. What lies under a node is a range of leaves, so counts under it are the difference of two prefix sums.

The order of the leaves decides what a node's two sides have in common, and so how well counts of one token speak for its neighbours.
Measured (bits a character, BPE of 2,048 tokens, 3 M tokens counted in o1 .. o3): by the pieces' bytes 1.555, by halving the vocabulary by its
neighbours 8 times 1.557, by 16 classes of 16 classes 1.562, by frequency 1.606.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from charstat.cpu.clustering import Clustering, Counts

MAX_DEPTH = 32  # codes have 32 bits
CLASSES, LEVELS, ROUNDS, PRIOR_COUNTS = 2, 8, 20, 2.0  # of order_by_neighbours
LOOKED_AT = 1 << 22  # tokens whose neighbours it counts
SPREAD = 64  # no leaf weighs less than 1 / (SPREAD V) of all: 16 + 6 + a few bits are the longest path


class TokenTree(NamedTuple):
    """Arrays by node (1 .. V - 1; 0 is none) or leaf."""

    root: int
    child: np.ndarray  # int32 [V, 2]: the node on either side, ~leaf where it is a leaf
    lowest: np.ndarray  # int32 [V]: first leaf under the node
    end: np.ndarray  # int32 [V]: and the one after the last
    order: np.ndarray  # int32 [V - 1]: all nodes, parents first
    depth: np.ndarray  # int32 [V]: decisions on a leaf's path
    codes: np.ndarray  # uint32 [V]: them, the first highest
    sums: np.ndarray  # float64 [V + 1]: frequency of the leaves before this one, each with PRIOR more
    leaf_of: np.ndarray  # uint16 [V]: by token id
    id_of: np.ndarray  # uint16 [V]: by leaf


PRIOR = 0.5


def token_tree(id_of: np.ndarray, counts: np.ndarray) -> TokenTree:
    """The tree over tokens in this order. id_of: uint16 [V], the ids by leaf; counts: how often each id was seen, uint32 [V]."""
    vocab = id_of.size
    seen = counts[id_of].astype(np.int64)
    floor = max(1, int(seen.sum()) // (SPREAD * vocab))
    cumulative = np.concatenate([[0], np.cumsum(np.maximum(seen, floor))])
    child, (lowest, end) = np.zeros((vocab, 2), np.int32), np.zeros((2, vocab), np.int32)
    depth, codes, order = np.zeros(vocab, np.int32), np.zeros(vocab, np.uint32), np.zeros(vocab - 1, np.int32)

    def middle(lo: int, hi: int) -> int:
        """The border that leaves both sides closest to half of the weight."""
        twice = int(cumulative[lo]) + int(cumulative[hi])
        at = min(max(int(np.searchsorted(cumulative, (twice + 1) // 2)), lo + 1), hi - 1)
        if at - 1 > lo and twice - 2 * int(cumulative[at - 1]) < 2 * int(cumulative[at]) - twice:
            at -= 1
        return at

    root = middle(0, vocab)
    waiting, n = [(root, 0, vocab, 0, 0)], 0
    while waiting:
        node, lo, hi, d, code = waiting.pop()
        lowest[node], end[node], order[n] = lo, hi, node
        n += 1
        for bit, (first, last) in enumerate(((lo, node), (node, hi))):
            path = code | bit << (MAX_DEPTH - 1 - d)
            if last - first == 1:
                child[node, bit], depth[first], codes[first] = ~first, d + 1, path
            else:
                child[node, bit] = split = middle(first, last)
                waiting.append((split, first, last, d + 1, path))
    leaf_of = np.empty(vocab, np.uint16)
    leaf_of[id_of] = np.arange(vocab, dtype=np.uint16)
    sums = np.concatenate([[0.0], np.cumsum(seen + PRIOR)])
    return TokenTree(root, child, lowest, end, order, depth, codes, sums, leaf_of, id_of)


def whole_plan(tree: TokenTree) -> np.ndarray:
    """All nodes, parents first, for kernels.decide: int32 [V - 1, 4], a node, and the rows of what is under it, under its left and its right
    side. Rows are a node's number, or V + leaf."""
    sides = tree.child[tree.order]
    rows = np.where(sides >= 0, sides, tree.codes.size + ~sides)
    return np.column_stack([tree.order, tree.order, rows]).astype(np.int32)


def order_by_bytes(token_bytes: list[bytes]) -> np.ndarray:
    """Ids in the order of their pieces: uint16 [V]. Tokens that begin alike stand together."""
    return np.array(sorted(range(len(token_bytes)), key=lambda i: (token_bytes[i], i)), np.uint16)


def order_by_neighbours(ids: np.ndarray, counts: np.ndarray, threads: int = 1) -> np.ndarray:
    """Ids so that tokens with like neighbours stand together: uint16 [V]. For vocabularies whose bytes are not known.

    Tokens are divided by the tokens before and after them (cpu/clustering.py), and every part in itself, LEVELS times; the tokens of the
    last parts stand by frequency. Any number of threads gives the same order.
    """
    vocab = counts.size
    groups = [np.argsort(-counts.astype(np.int64), kind="stable")]
    rows = _neighbours(ids[:LOOKED_AT], vocab)
    for _ in range(LEVELS):
        groups = [part for group in groups for part in _clustered(rows, group, threads)]
    return np.concatenate(groups).astype(np.uint16)


def _neighbours(ids: np.ndarray, vocab: int) -> Counts:
    """How often each token stands before and after each: row by token, columns 0 .. V the next tokens, V .. 2 V the ones before."""
    pairs = ids[:-1].astype(np.uint64) << np.uint64(17)
    keys = np.concatenate([pairs | ids[1:], (ids[1:].astype(np.uint64) << np.uint64(17)) | (ids[:-1].astype(np.uint64) + np.uint64(vocab))])
    keys, times = np.unique(keys, return_counts=True)
    starts = np.searchsorted(keys, np.arange(vocab + 1, dtype=np.uint64) << np.uint64(17)).astype(np.int64)
    return Counts(starts, (keys & np.uint64((1 << 17) - 1)).astype(np.uint32), times.astype(np.float32), 2 * vocab)


def _clustered(rows: Counts, group: np.ndarray, threads: int) -> list[np.ndarray]:
    """The tokens of a group, frequent ones first, as up to CLASSES groups."""
    if group.size <= 2 * CLASSES:
        return [group]
    sizes = rows.starts[group + 1] - rows.starts[group]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    picked = np.repeat(rows.starts[group] - starts[:-1], sizes) + np.arange(starts[-1])
    part = Counts(starts, rows.columns[picked], rows.counts[picked], rows.width)
    labels = (np.arange(group.size) % CLASSES).astype(np.int32)
    with ThreadPoolExecutor(threads) as pool:
        clustering = Clustering(part, labels, CLASSES, rows.width // 2, PRIOR_COUNTS, pool, threads)
        for _ in range(ROUNDS):
            if clustering.join(leave_out=True) * 100 < group.size:
                break
    return [members for c in range(CLASSES) if (members := group[clustering.labels == c]).size]
