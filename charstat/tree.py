"""The code tree: a symbol as a path of binary decisions.

A Huffman tree over character classes (space and newline, lower case, upper case, digit, other), with a Huffman tree over
the symbols of each class below it. The class comes first, because it is what a context predicts best: this tree costs fewer bits
per character than a plain Huffman tree or a flat code. On English, a character takes about five decisions.

Leaves are in symbol order: the alphabet numbers its symbols by their place in this tree, so that every node covers a
contiguous range of symbols [lo, hi), split at mid, and the mass of a count table under a node is a difference of two
cumulative counts. The escape symbol is the last leaf.

    weights {a: 5, b: 2, r: 2, escape: 1}     decisions of 'a'      1
                 0                             decisions of 'b'      0 0
               /   \\                          (leaves in order: ..., escape last)

This file builds and describes the tree; it knows nothing of probabilities.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SYMBOLS = 128
ESCAPE = 127
LEAF = 128  # child ids from LEAF on are leaves: LEAF + symbol
MAX_DEPTH = 64

CLASSES = ("space", "lower", "upper", "digit", "other")
SPACE, LOWER, UPPER, DIGIT, OTHER = range(5)


def character_class(char: str) -> int:
    """The class of a character: an index into CLASSES."""
    if char in " \n":
        return SPACE
    if char.islower():
        return LOWER
    if char.isupper():
        return UPPER
    return DIGIT if char.isdigit() else OTHER


def huffman(weighted: list[tuple[int, object]]) -> tuple[int, object]:
    """(total weight, nested pairs) of the Huffman tree over (weight, item); deterministic: ties go to the earlier item."""
    heap = [(weight, i, item) for i, (weight, item) in enumerate(weighted)]
    heapq.heapify(heap)
    serial = len(heap)
    while len(heap) > 1:
        w0, _, light = heapq.heappop(heap)
        w1, _, heavy = heapq.heappop(heap)
        heapq.heappush(heap, (w0 + w1, serial, (light, heavy)))
        serial += 1
    return heap[0][0], heap[0][2]


def class_huffman(chars: list[str], counts: list[int], escape_count: int) -> object:
    """Nested pairs over characters (and ESCAPE for the escape leaf), the escape rightmost. Weights are counts + 1."""
    groups: dict[int, list[tuple[int, object]]] = {OTHER: [(escape_count + 1, ESCAPE)]}
    for char, count in zip(chars, counts, strict=True):
        groups.setdefault(character_class(char), []).append((count + 1, char))
    return _escape_last(huffman([huffman(groups[c]) for c in sorted(groups)])[1])[0]


def leaves(tree: object) -> list[object]:
    """The leaves of nested pairs, left to right."""
    if not isinstance(tree, tuple):
        return [tree]
    return leaves(tree[0]) + leaves(tree[1])


def _escape_last(tree: object) -> tuple[object, bool]:
    """The tree with children swapped so that the escape is the rightmost leaf, and whether it is in here."""
    if not isinstance(tree, tuple):
        return tree, tree == ESCAPE
    (left, in_left), (right, in_right) = _escape_last(tree[0]), _escape_last(tree[1])
    return ((right, left) if in_left else (left, right)), in_left or in_right


class TreeArrays(NamedTuple):
    """What the kernels read. Nodes are numbered parents first; node 0 is the root."""

    child: np.ndarray  # int64 [nodes, 2]: node id, or LEAF + symbol
    lowest: np.ndarray  # int64 [nodes]: the node covers the symbols lowest .. end
    mid: np.ndarray  # int64 [nodes]: those from mid on lie under the 1-child
    end: np.ndarray  # int64 [nodes]
    leaf_share: np.ndarray  # float64 [nodes]: leaves under the 1-child / leaves under the node
    depth: np.ndarray  # int64 [128]: decisions of a symbol; 0 for unused symbols
    path_node: np.ndarray  # int64 [128, MAX_DEPTH + 1]: the nodes on a symbol's path, then LEAF + symbol
    path_bit: np.ndarray  # uint8 [128, MAX_DEPTH]
    shared: np.ndarray  # uint8 [128, 128]: decisions after which two symbols are still together; depth on the diagonal


@dataclass(frozen=True)
class CodeTree:
    """A code tree over symbols. `code` is its shape in preorder, one character a node: '(' inner, '.' leaf."""

    code: str
    arrays: TreeArrays

    @classmethod
    def from_pairs(cls, tree: object) -> CodeTree:
        return cls(_encode(tree), _arrays(tree, len(leaves(tree))))

    @classmethod
    def from_code(cls, code: str) -> CodeTree:
        """The tree of a preorder shape; leaf i is symbol i, the last leaf is ESCAPE. ValueError if it is not the shape of a tree."""
        n = code.count(".")
        if not 2 <= n <= SYMBOLS or code.count("(") != n - 1 or set(code) - {"(", "."}:
            raise ValueError("not the shape of a code tree")
        shape, end = _decode(code, 0)
        if end != len(code):
            raise ValueError("not the shape of a code tree")
        return cls(code, _arrays(shape, n))


def _encode(tree: object) -> str:
    return "(" + _encode(tree[0]) + _encode(tree[1]) if isinstance(tree, tuple) else "."


def _decode(code: str, at: int) -> tuple[object, int]:
    if at >= len(code):
        raise ValueError("not the shape of a code tree")
    if code[at] == ".":
        return None, at + 1
    left, at = _decode(code, at + 1)
    right, at = _decode(code, at)
    return (left, right), at


def _arrays(shape: object, n: int) -> TreeArrays:
    child = np.zeros((n - 1, 2), np.int64)
    lowest, mid, end = np.zeros(n - 1, np.int64), np.zeros(n - 1, np.int64), np.zeros(n - 1, np.int64)
    share = np.zeros(n - 1)
    depth = np.zeros(SYMBOLS, np.int64)
    path_node = np.zeros((SYMBOLS, MAX_DEPTH + 1), np.int64)
    path_bit = np.zeros((SYMBOLS, MAX_DEPTH), np.uint8)

    def symbol_of(leaf: int) -> int:
        return ESCAPE if leaf == n - 1 else leaf

    def size(t: object) -> int:
        return size(t[0]) + size(t[1]) if isinstance(t, tuple) else 1

    # Breadth first, so that parents come before their children.
    queue: list[tuple[object, int, list[int], list[int]]] = [(shape, 0, [], [])]
    number = 0
    for t, first_leaf, nodes, bits in queue:
        if len(bits) > MAX_DEPTH:
            raise ValueError(f"the code tree is deeper than {MAX_DEPTH}")
        if not isinstance(t, tuple):
            symbol = symbol_of(first_leaf)
            me = LEAF + symbol
            depth[symbol] = len(bits)
            path_node[symbol, : len(bits) + 1] = [*nodes, me]
            path_bit[symbol, : len(bits)] = bits
        else:
            me, number = number, number + 1
            left, right = size(t[0]), size(t[1])
            lowest[me], mid[me] = symbol_of(first_leaf), symbol_of(first_leaf + left)
            end[me], share[me] = symbol_of(first_leaf + left + right - 1) + 1, right / (left + right)
            queue.append((t[0], first_leaf, [*nodes, me], [*bits, 0]))
            queue.append((t[1], first_leaf + left, [*nodes, me], [*bits, 1]))
        if nodes:
            child[nodes[-1], bits[-1]] = me

    deepest = int(depth.max())
    alike = path_bit[:, np.newaxis, :deepest] == path_bit[:, :deepest]
    alike &= np.arange(deepest) < np.minimum(depth[:, np.newaxis], depth)[..., np.newaxis]  # none for unused symbols
    shared = np.logical_and.accumulate(alike, axis=2).sum(axis=2, dtype=np.uint8)
    return TreeArrays(child, lowest, mid, end, share, depth, path_node, path_bit, shared)
