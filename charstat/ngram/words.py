"""Words: tokens of the text, the vocabulary as a trie, and the features that word contexts look at.

A token is a maximal run of characters other than space and newline, together with the separator that ends it; a separator
right after another one is a token of its own. A word n-gram is counted once, at the token's end, not at every character. The
counts of the next character follow from it: the vocabulary is sorted by symbols, so that the words with a given prefix have
consecutive ids, and so have those of them whose next symbol lies under a given node of the code tree.

    vocabulary "a_" "an_" "and_" "the_"       prefix "a": ids 0..3        next symbol '_': id 0, 'n': ids 1..3
    counts in the context          4 2 6 9    mass of "a": 12, of "an" given "a": 8 / 12

Words are identified by their first 32 characters; word contexts predict nothing beyond those. A token belongs to the text that
has its separator, so that the counts of shards, each built with the text before it as history, add up to those of the whole.

This file has the word state (which the stream keeps and the counting replays) and the trie. Token counting is in cpu/words.py
and gpu/tokens.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.alphabet import Alphabet
from charstat.ngram.contexts import class_map
from charstat.ngram.hashing import ODD_B, SYMBOL_BITS, SYMBOL_MASK, SYMBOL_SHIFT
from charstat.tree import DIGIT, ESCAPE, OTHER, SYMBOLS, UPPER, character_class

MAX_WORD = 32  # characters that identify a word
PACK = 9  # symbols in one packed uint64: 63 bits
PACKS = 4  # uint64 words for a token: 36 symbols >= MAX_WORD
NO_NODE = -1
ROOT = 0


class SymbolInfo(NamedTuple):
    """What the word kernels know of each symbol: arrays of 128."""

    separator: np.ndarray  # uint8: 1 for space and newline
    lower: np.ndarray  # uint8: the symbol of the lower-cased character
    kind: np.ndarray  # uint8: the character class (tree.CLASSES)
    classes: np.ndarray  # uint8: class symbols (contexts.class_map)
    heading: np.uint64 = np.uint64(0)  # HASH of "=", which titles begin with, or 0


def symbol_info(alphabet: Alphabet, classes: np.ndarray) -> SymbolInfo:
    separator, kind = np.zeros(SYMBOLS, np.uint8), np.full(SYMBOLS, OTHER, np.uint8)
    lower = np.arange(SYMBOLS, dtype=np.uint8)
    for symbol, char in enumerate(alphabet.chars):
        separator[symbol] = char in " \n"
        kind[symbol] = character_class(char)
        lower[symbol] = alphabet.symbol_of.get(char.lower(), symbol)
    heading = hash_step(np.uint64(0), alphabet.symbol_of["="]) if "=" in alphabet.symbol_of else 0
    return SymbolInfo(separator, lower, kind, classes, np.uint64(heading))


def model_symbol_info(alphabet: Alphabet) -> SymbolInfo:
    """What the word kernels know of an alphabet's symbols, with the classes of contexts.class_map."""
    return symbol_info(alphabet, class_map(alphabet))


# The current word: uint64 fields of one array, which stream and counting update with the same functions.
HASH, LOWER_HASH, LENGTH, FIRST_KIND, LAST_THREE = range(5)
WORD_STATE = 5
U1, U16 = np.uint64(1), np.uint64(16)
MASK21, MASK32 = np.uint64(0x1FFFFF), np.uint64(0xFFFFFFFF)
NO_LETTERS = np.uint64(ESCAPE << 14 | ESCAPE << 7 | ESCAPE)  # before a word's first letter: symbol 0 is a letter, too


@njit(cache=True, nogil=True, inline="always")
def hash_step(h, symbol):
    """Extend the hash of a word by one symbol."""
    h = (h + np.uint64(symbol) + U1) * ODD_B
    return h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True, inline="always")
def extend_word(word, symbol, info):
    """Append a symbol (no separator) to the current word; past MAX_WORD only the length grows."""
    if word[LENGTH] < np.uint64(MAX_WORD):
        if word[LENGTH] == np.uint64(0):
            word[FIRST_KIND] = np.uint64(info.kind[symbol])
            word[LAST_THREE] = NO_LETTERS
        word[HASH] = hash_step(word[HASH], symbol)
        word[LOWER_HASH] = hash_step(word[LOWER_HASH], info.lower[symbol])
        word[LAST_THREE] = ((word[LAST_THREE] << SYMBOL_SHIFT) | np.uint64(symbol)) & MASK21
    word[LENGTH] += U1


@njit(cache=True, nogil=True, inline="always")
def word_shape(length, first_kind, last_three):
    """Eight bits: the class of the first character and a coarse length; for the class "other", the last character."""
    if first_kind == np.uint64(OTHER):
        return np.uint64(128) + (last_three & SYMBOL_MASK)
    return first_kind * np.uint64(4) + np.uint64(min(np.int64(length), 9) // 3)


@njit(cache=True, nogil=True, inline="always")
def push_hash(features, word_hash):
    """The part of push_word that the features of hashing.HASH_MASK see."""
    features[3] = features[2]
    features[2] = features[1]
    features[1] = features[0]
    features[0] = word_hash


@njit(cache=True, nogil=True, inline="always")
def push_form(features, word_hash, lower_hash, shape, first_kind, last_three):
    """The part of push_word that the features of hashing.FORM_MASK see."""
    features[4] = ((features[4] << np.uint64(8)) | shape) & MASK32
    if first_kind == np.uint64(DIGIT):
        features[5] = word_hash
    if first_kind == np.uint64(UPPER):
        features[6] = word_hash
    features[8] = features[7]
    features[7] = lower_hash
    features[9] = last_three + U1
    features[10] = ((features[10] << U16) | (last_three & np.uint64(0x3FFF)) + U1) & MASK32


@njit(cache=True, nogil=True, inline="always")
def push_classes(features, small, large):
    """The part of push_word that the features of hashing.CLASS_MASK see, the topic aside."""
    features[14] = features[13]
    features[13] = features[12]
    features[12] = features[11]
    features[11] = small
    features[16] = features[15]
    features[15] = large


@njit(cache=True, nogil=True, inline="always")
def push_word(features, word_hash, lower_hash, shape, first_kind, last_three, small, large):
    """Make a finished word w1, the former w1 w2, and so on. features: uint64 [N_FEATURES], see hashing.WORD_FEATURES.

    small, large: its classes (classes.class_features). The topic does not depend on one word alone: features[TOPIC] is set elsewhere.
    """
    push_hash(features, word_hash)
    push_form(features, word_hash, lower_hash, shape, first_kind, last_three)
    push_classes(features, small, large)


class Vocabulary(NamedTuple):
    """The sorted vocabulary as a trie, nodes in breadth-first order. Node 0 is the root.

    The children of node v are first_child[v] .. first_child[v + 1], by rising symbol; those words that start with a child's
    prefix have the ids from its first_id up to the next sibling's (for the last one: to the end of v's own range).
    """

    first_child: np.ndarray  # uint32 [nodes + 1]
    symbol: np.ndarray  # uint8 [nodes]
    first_id: np.ndarray  # uint32 [nodes]
    size: int  # words

    @property
    def n_bytes(self) -> int:
        return self.first_child.nbytes + self.symbol.nbytes + self.first_id.nbytes


def build_trie(packed: np.ndarray, lengths: np.ndarray) -> Vocabulary:
    """The trie of a vocabulary sorted by symbols. packed: uint64 [words, PACKS], first symbol highest; lengths: uint8 [words]."""
    n = packed.shape[0]
    common = np.zeros(n, np.int64)
    _common_prefixes(packed, lengths, common)
    total = 1 + int((lengths.astype(np.int64) - common).sum())
    first_child, symbol, first_id = np.zeros(total + 1, np.uint32), np.zeros(total, np.uint8), np.zeros(total, np.uint32)
    _fill_trie(packed, lengths, common, first_child, symbol, first_id)
    return Vocabulary(first_child, symbol, first_id, n)


@njit(cache=True, nogil=True, inline="always")
def packed_symbol(packed, word, depth):
    """Symbol number `depth` of a packed word."""
    return (packed[word, depth // PACK] >> np.uint64(SYMBOL_BITS * (PACK - 1 - depth % PACK))) & SYMBOL_MASK


@njit(cache=True, nogil=True)
def _common_prefixes(packed, lengths, common):
    for i in range(1, packed.shape[0]):
        d = 0
        most = min(np.int64(lengths[i]), np.int64(lengths[i - 1]))
        while d < most and packed_symbol(packed, i, d) == packed_symbol(packed, i - 1, d):
            d += 1
        common[i] = d


@njit(cache=True, nogil=True)
def _fill_trie(packed, lengths, common, first_child, symbol, first_id):
    n = packed.shape[0]
    first_child[0] = 1
    level_start, at, parents = 0, 1, 1
    depth = 0
    while parents > 0:
        # Nodes level_start .. level_start + parents have this depth; lay out their children, both in the order of ids.
        children = 0
        parent = level_start
        for i in range(n):
            if np.int64(lengths[i]) <= depth or common[i] > depth:
                continue
            while parent + 1 < level_start + parents and np.int64(first_id[parent + 1]) <= i:
                parent += 1
                first_child[parent] = np.uint32(at)
            symbol[at] = np.uint8(packed_symbol(packed, i, depth))
            first_id[at] = np.uint32(i)
            at += 1
            children += 1
        while parent + 1 < level_start + parents:
            parent += 1
            first_child[parent] = np.uint32(at)
        first_child[level_start + parents] = np.uint32(at)
        level_start += parents
        parents = children
        depth += 1


def vocabulary_words(vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """(packed, lengths) of a trie's words: the inverse of build_trie."""
    packed, lengths = np.zeros((vocabulary.size, PACKS), np.uint64), np.zeros(vocabulary.size, np.uint8)
    if vocabulary.size:
        _unpack_trie(vocabulary.first_child, vocabulary.symbol, vocabulary.first_id, packed, lengths)
    return packed, lengths


@njit(cache=True, nogil=True)
def _unpack_trie(first_child, symbol, first_id, packed, lengths):
    nodes = symbol.shape[0]
    ends = np.zeros(nodes, np.int64)
    depths = np.zeros(nodes, np.int64)
    ends[0] = lengths.shape[0]
    for v in range(nodes):
        for c in range(first_child[v], first_child[v + 1]):
            depths[c] = depths[v] + 1
            ends[c] = np.int64(first_id[c + 1]) if c + 1 < np.int64(first_child[v + 1]) else ends[v]
            d = depths[v]
            bits = np.uint64(symbol[c]) << np.uint64(SYMBOL_BITS * (PACK - 1 - d % PACK))
            for i in range(np.int64(first_id[c]), ends[c]):
                packed[i, d // PACK] |= bits
                lengths[i] = np.uint8(d + 1)


@njit(cache=True, nogil=True, inline="always")
def lower_bound(values, lo, hi, wanted):
    """First index in [lo, hi) whose value is >= wanted, hi if there is none. values rise."""
    while lo < hi:
        middle = (lo + hi) >> 1
        if np.int64(values[middle]) < wanted:
            lo = middle + 1
        else:
            hi = middle
    return lo


@njit(cache=True, nogil=True, inline="always")
def gallop(values, lo, hi, wanted):
    """lower_bound for an answer that is likely to be near lo: steps that double, then a binary search within the last one."""
    step = 1
    while lo + step < hi and np.int64(values[lo + step]) < wanted:
        lo += step
        step *= 2
    return lower_bound(values, lo, min(lo + step, hi), wanted)


@njit(cache=True, nogil=True, inline="always")
def find_child(node, wanted_symbol, first_child, symbol):
    """First child of a trie node whose symbol is >= wanted_symbol (the end of the children if there is none)."""
    return lower_bound(symbol, np.int64(first_child[node]), np.int64(first_child[node + 1]), wanted_symbol)
