"""charstat/tree.py: hand-computed codes, and every array against a twin that reads the code by itself."""

import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import ESCAPE, TreeTwin, char_class

from charstat.tree import CLASSES, LEAF, MAX_DEPTH, CodeTree, character_class, class_huffman, huffman, leaves

# a 5, b 2, c 1, d 1, r 2, each + 1: lower case is ((b r) ((c d) a)), the escape (0 + 1) is lighter and goes to the right
ABRACADABRA = "(((..((...."
CODES = {"b": "000", "r": "001", "c": "0100", "d": "0101", "a": "011"}


def bits(tree: CodeTree, symbol: int) -> str:
    a = tree.arrays
    return "".join(str(b) for b in a.path_bit[symbol, : a.depth[symbol]])


def test_abracadabra():
    pairs = class_huffman(list("abcdr"), [5, 2, 1, 1, 2], 0)
    tree = CodeTree.from_pairs(pairs)
    assert leaves(pairs) == [*"brcda", ESCAPE]
    assert tree.code == ABRACADABRA
    assert {c: bits(tree, i) for i, c in enumerate("brcda")} == CODES
    assert bits(tree, ESCAPE) == "1"
    a = tree.arrays
    assert a.depth[[0, 1, 2, 3, 4, ESCAPE]].tolist() == [3, 3, 4, 4, 3, 1]
    assert (a.lowest[0], a.mid[0], a.end[0]) == (0, ESCAPE, ESCAPE + 1)
    assert a.leaf_share[0] == 1 / 6
    assert a.shared[2, 3] == 3 and a.shared[2, 4] == 2 and a.shared[2, 0] == 1 and a.shared[2, ESCAPE] == 0 and a.shared[2, 2] == 4


def test_huffman_ties_go_to_the_earlier():
    assert huffman([(1, "a"), (1, "b"), (1, "c"), (1, "d")]) == (4, (("a", "b"), ("c", "d")))
    assert huffman([(7, "only")]) == (7, "only")


def test_classes_come_first():
    """No letter shares a decision with a digit before both classes are told apart."""
    text = " \nabcxyzABC012.,"
    pairs = class_huffman(list(text), list(range(1, len(text) + 1)), 3)
    tree, order = CodeTree.from_pairs(pairs), leaves(pairs)
    prefixes = {}
    for name in ("space", "lower", "upper", "digit"):
        codes = [bits(tree, i) for i, c in enumerate(order[:-1]) if char_class(c) == name]
        common = codes[0]
        while not all(c.startswith(common) for c in codes):
            common = common[:-1]
        prefixes[name] = common
    for name, prefix in prefixes.items():
        inside = {char_class(c) for i, c in enumerate(order[:-1]) if bits(tree, i).startswith(prefix)}
        assert inside == {name}


@pytest.mark.parametrize(
    ("char", "name"),
    [(" ", "space"), ("\n", "space"), ("a", "lower"), ("é", "lower"), ("ß", "lower"), ("A", "upper"), ("Σ", "upper"), ("0", "digit"), ("٣", "digit"),
     ("\t", "other"), (".", "other"), ("戦", "other"), ("\0", "other"), ("\ud800", "other"), ("\u00a0", "other")],
)  # fmt: skip
def test_character_class(char, name):
    assert CLASSES[character_class(char)] == name
    assert char_class(char) == name


weights = st.lists(st.integers(0, 10**6), min_size=1, max_size=127)


@given(weights, st.integers(0, 1000))
def test_arrays_against_the_twin(counts, escapes):
    chars = [chr(32 + i) for i in range(len(counts))]
    pairs = class_huffman(chars, counts, escapes)
    tree = CodeTree.from_pairs(pairs)
    a, twin = tree.arrays, TreeTwin(tree.code)
    assert sorted(leaves(pairs)[:-1]) == sorted(chars) and leaves(pairs)[-1] == ESCAPE
    assert sorted(twin.symbols) == [*range(len(chars)), ESCAPE]
    assert sum(0.5 ** len(path) for path in twin.paths.values()) == 1.0
    assert all(bit == 1 for _, bit in twin.paths[ESCAPE])
    number = {}
    for s, path in twin.paths.items():
        assert a.depth[s] == len(path)
        assert bits(tree, s) == "".join(str(bit) for _, bit in path)
        nodes = a.path_node[s, : len(path) + 1].tolist()
        assert nodes[-1] == LEAF + s
        for (name, bit), v, c in zip(path, nodes, nodes[1:], strict=False):
            assert number.setdefault(name, v) == v
            assert a.child[v, bit] == c and (c >= LEAF or c > v)
    assert sorted(number.values()) == list(range(len(chars))) and number[""] == 0
    used = set(twin.symbols)
    for name, v in number.items():
        zeros, ones = twin.under[name, 0], twin.under[name, 1]
        assert {s for s in used if a.lowest[v] <= s < a.mid[v]} == zeros
        assert {s for s in used if a.mid[v] <= s < a.end[v]} == ones
        assert a.leaf_share[v] == len(ones) / (len(ones) + len(zeros))
    for s in list(used)[::7]:
        for t in list(used)[::5]:
            same = [x == y for x, y in zip(twin.paths[s], twin.paths[t], strict=False)]
            assert a.shared[s, t] == (same.index(False) if False in same else len(same))
    assert not a.depth[[s for s in range(128) if s not in used]].any()


@given(weights)
def test_huffman_is_as_short_as_can_be(counts):
    """The total length of the codes against the sum of merged weights, which is Huffman's by definition."""
    total, tree = huffman([(n, i) for i, n in enumerate(counts)])

    def lengths(t, depth=0):
        return {t: depth} if not isinstance(t, tuple) else {**lengths(t[0], depth + 1), **lengths(t[1], depth + 1)}

    heap = list(counts)
    heapq.heapify(heap)
    merged = 0
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        merged += both
        heapq.heappush(heap, both)
    assert total == sum(counts)
    assert sum(counts[i] * d for i, d in lengths(tree).items()) == merged


@given(weights)
def test_code_round_trip(counts):
    tree = CodeTree.from_pairs(class_huffman([chr(32 + i) for i in range(len(counts))], counts, 0))
    again = CodeTree.from_code(tree.code)
    assert again.code == tree.code
    assert all(np.array_equal(x, y) for x, y in zip(tree.arrays, again.arrays, strict=True))


@pytest.mark.parametrize("code", ["", ".", "(", "..", "(.", "(...", ".(.", "(..)", "((..", "(. .", "(" * 128 + "." * 129, "é"])
def test_no_tree(code):
    with pytest.raises(ValueError, match="code tree"):
        CodeTree.from_code(code)


def test_too_deep():
    deepest = "(." * MAX_DEPTH + "."
    assert CodeTree.from_code(deepest).arrays.depth[ESCAPE] == MAX_DEPTH
    with pytest.raises(ValueError, match="deeper"):
        CodeTree.from_code("(." + deepest)


def test_most_skewed_counts():
    """Fibonacci counts give the deepest Huffman tree; a text of 2**40 characters stays far from MAX_DEPTH."""
    counts = [1, 1]
    while sum(counts) < 1 << 40:
        counts.append(counts[-1] + counts[-2])
    chars = [chr(0x61 + i) if i < 26 else chr(0x3B1 + i - 26) for i in range(len(counts))]
    tree = CodeTree.from_pairs(class_huffman(chars, counts, 0))
    assert tree.arrays.depth.max() < MAX_DEPTH
