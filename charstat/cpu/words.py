"""Word counting on the CPU: tokens, vocabulary, and the keys of word contexts. What a word is: ngram/words.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.errors import ResourceError
from charstat.ngram.classes import WordClasses, describe_words, token_topics
from charstat.ngram.hashing import (
    CLASS_MASK,
    FORM_MASK,
    HASH_MASK,
    N_FEATURES,
    SYMBOL_BITS,
    TOPIC,
    WORD_ID_BITS,
    word_hash,
    word_identity,
)
from charstat.ngram.words import (
    FIRST_KIND,
    HASH,
    LAST_THREE,
    LENGTH,
    LOWER_HASH,
    MAX_WORD,
    PACK,
    PACKS,
    WORD_STATE,
    SymbolInfo,
    Vocabulary,
    build_trie,
    extend_word,
    hash_step,
    push_classes,
    push_form,
    push_hash,
    word_shape,
)

SNAPSHOT_TOKENS = 1 << 14  # tokens between two snapshots of the features, from which a chunk can start
U0, U24 = np.uint64(0), np.uint64(WORD_ID_BITS)
ALL_FEATURES = (1 << N_FEATURES) - 1
NO_KEYS, NO_SNAPSHOTS = np.empty(0, np.uint64), np.empty((0, N_FEATURES), np.uint64)


class Tokens(NamedTuple):
    """The counted text as words. Tokens before `first` belong to the history: context only."""

    vocabulary: Vocabulary
    ids: np.ndarray  # uint32 [tokens]
    first: int
    attributes: np.ndarray  # uint64 [words, WORD_STATE]: the word state of each vocabulary word at its separator


class TokenFeatures(NamedTuple):
    """What contexts look at, so that the features before any token can be had."""

    hashes: np.ndarray  # uint64 [words]: of each vocabulary word its hash; 0 for a token without a word
    shapes: np.ndarray  # uint64 [words]: its shape
    classes: np.ndarray  # uint64 [words, 2]: its features k and K
    topics: np.ndarray  # uint16 [tokens]: the feature topic before each token
    snapshots: np.ndarray  # uint64 [tokens // SNAPSHOT_TOKENS + 1, N_FEATURES]: the other features, before these tokens


def tokenize(symbols: np.ndarray, n_history: int, info: SymbolInfo) -> Tokens:
    """The tokens of a text whose first `n_history` symbols are history. ResourceError above 2**24 distinct words."""
    n = int(_count_tokens(symbols, info.separator))
    starts = np.empty(n + 1, np.int64)
    _token_starts(symbols, info.separator, starts)
    ids = np.empty(n, np.uint32)
    capacity = 1 << 16
    samples = np.empty(0, np.int64)
    slots, owners = np.zeros(capacity, np.uint64), np.zeros(capacity, np.uint32)
    done = 0
    while True:
        done, distinct, samples = _grow_vocabulary(symbols, starts, done, slots, owners, samples, ids)
        if done == n:
            break
        if distinct >= 1 << WORD_ID_BITS:  # no need to number the rest
            break
        slots, owners = np.zeros(4 * slots.size, np.uint64), np.zeros(4 * slots.size, np.uint32)
        _rehash(symbols, starts, samples, slots, owners)
    if done < n or samples.size > 1 << WORD_ID_BITS:
        raise ResourceError("more than 16,777,216 distinct words: build without word contexts (--contexts chars)")
    packed, lengths = np.zeros((samples.size, PACKS), np.uint64), np.zeros(samples.size, np.uint8)
    attributes = np.zeros((samples.size, WORD_STATE), np.uint64)
    _describe(symbols, starts, samples, info, packed, lengths, attributes)
    order = np.lexsort(packed.T[::-1])
    rank = np.empty(samples.size, np.uint32)
    rank[order] = np.arange(samples.size, dtype=np.uint32)
    _relabel(ids, rank)
    # A token belongs to the text that holds its separator, its last symbol.
    first = int(np.searchsorted(starts[1:], n_history, "right"))
    return Tokens(build_trie(packed[order], lengths[order]), ids, first, attributes[order])


def word_shapes(attributes: np.ndarray) -> np.ndarray:
    """The shape of every vocabulary word: uint64 [words]; without a meaning for tokens without a word."""
    shapes = np.zeros(attributes.shape[0], np.uint64)
    _word_shapes(attributes, shapes)
    return shapes


def token_features(tokens: Tokens, classes: WordClasses, heading: np.uint64, first: int = 0, topic: tuple | None = None) -> TokenFeatures:
    """The features of a text's tokens, with these classes. heading: of SymbolInfo; first, topic: as in token_topics()."""
    attributes = tokens.attributes
    hashes, shapes = attributes[:, HASH].copy(), word_shapes(attributes)
    features, words = describe_words(hashes, shapes, attributes[:, LENGTH] > 0, heading, classes)
    snapshots = np.zeros((tokens.ids.size // SNAPSHOT_TOKENS + 1, N_FEATURES), np.uint64)
    topics = token_topics(tokens.ids, words, classes, first, topic)
    at = np.zeros(N_FEATURES, np.uint64)
    _push_tokens(tokens.ids, attributes, hashes, shapes, features, topics, at, ALL_FEATURES, 0, tokens.ids.size, snapshots, NO_KEYS)
    return TokenFeatures(hashes, shapes, features, topics, snapshots)


@njit(cache=True, nogil=True)
def _count_tokens(symbols, separator):
    n = 0
    for i in range(symbols.shape[0]):
        n += np.int64(separator[symbols[i]])
    return n


@njit(cache=True, nogil=True)
def _token_starts(symbols, separator, starts):
    starts[0] = 0
    t = 1
    for i in range(symbols.shape[0]):
        if separator[symbols[i]]:
            starts[t] = i + 1
            t += 1


@njit(cache=True, nogil=True, inline="always")
def _token_hash(symbols, start, end):
    h = np.uint64(0)
    for i in range(start, min(end, start + MAX_WORD)):
        h = hash_step(h, symbols[i])
    return h


@njit(cache=True, nogil=True)
def _grow_vocabulary(symbols, starts, done, slots, owners, samples, ids):
    """Number the tokens from `done` on by first occurrence, until the end or until the hash table is half full.

    slots: the token's hash; owners: its number + 1; samples: the first token with each number. Tokens are distinguished by
    their 64-bit hash: among a million words, two share one with probability 3e-8.
    """
    mask = slots.shape[0] - 1
    room = np.empty(slots.shape[0] // 2, np.int64)
    distinct = samples.shape[0]
    for w in range(distinct):  # subtle: an assignment of arrays compiles for seconds, its error message included
        room[w] = samples[w]
    n = ids.shape[0]
    while done < n:
        h = _token_hash(symbols, starts[done], starts[done + 1])
        p = np.int64(h >> np.uint64(20)) & mask
        while owners[p] != 0 and slots[p] != h:
            p = (p + 1) & mask
        if owners[p] == 0:
            if distinct == room.shape[0]:
                break
            room[distinct] = done
            distinct += 1
            slots[p] = h
            owners[p] = np.uint32(distinct)
        ids[done] = owners[p] - np.uint32(1)
        done += 1
    return done, distinct, room[:distinct].copy()


@njit(cache=True, nogil=True)
def _rehash(symbols, starts, samples, slots, owners):
    mask = slots.shape[0] - 1
    for w in range(samples.shape[0]):
        h = _token_hash(symbols, starts[samples[w]], starts[samples[w] + 1])
        p = np.int64(h >> np.uint64(20)) & mask
        while owners[p] != 0:
            p = (p + 1) & mask
        slots[p] = h
        owners[p] = np.uint32(w + 1)


@njit(cache=True, nogil=True)
def _describe(symbols, starts, samples, info, packed, lengths, attributes):
    for w in range(samples.shape[0]):
        start, end = starts[samples[w]], starts[samples[w] + 1]
        for i in range(start, min(end, start + MAX_WORD)):
            d = i - start
            packed[w, d // PACK] |= np.uint64(symbols[i]) << np.uint64(SYMBOL_BITS * (PACK - 1 - d % PACK))
        lengths[w] = np.uint8(min(end - start, MAX_WORD))
        for i in range(start, min(end - 1, start + MAX_WORD)):
            extend_word(attributes[w], symbols[i], info)
        attributes[w, LENGTH] = np.uint64(min(end - 1 - start, MAX_WORD))


@njit(cache=True, nogil=True)
def _relabel(ids, rank):
    for t in range(ids.shape[0]):
        ids[t] = rank[ids[t]]


@njit(cache=True, nogil=True)
def _word_shapes(attributes, shapes):
    for w in range(shapes.shape[0]):
        shapes[w] = word_shape(attributes[w, LENGTH], attributes[w, FIRST_KIND], attributes[w, LAST_THREE])


@njit(cache=True, nogil=True)
def _push_tokens(ids, attributes, hashes, shapes, classes, topics, features, mask, lo, hi, snapshots, out):
    """Go over the tokens lo .. hi, with their features of the mask; most masks ask for hashes alone, a fifth of the work.

    snapshots: where there is room, the features before every SNAPSHOT_TOKENS-th token, written; out: the keys, where there is room.
    """
    hashed, formed, classed = (mask & HASH_MASK) != 0, (mask & FORM_MASK) != 0, (mask & CLASS_MASK) != 0
    for t in range(lo, hi):
        w = ids[t]
        if out.shape[0] > 0:
            if classed:
                features[TOPIC] = np.uint64(topics[t])
            out[t - lo] = (word_identity(word_hash(mask, features)) << U24) | np.uint64(w)
        elif snapshots.shape[0] > 0 and t % SNAPSHOT_TOKENS == 0:
            for f in range(N_FEATURES):
                snapshots[t // SNAPSHOT_TOKENS, f] = features[f]
        if hashes[w] == U0 and attributes[w, LENGTH] == U0:
            continue
        if hashed:
            push_hash(features, hashes[w])
        if formed:
            push_form(features, hashes[w], attributes[w, LOWER_HASH], shapes[w], attributes[w, FIRST_KIND], attributes[w, LAST_THREE])
        if classed:
            push_classes(features, classes[w, 0], classes[w, 1])


def word_keys(tokens: Tokens, features: TokenFeatures, mask: int) -> tuple[Callable[[int, int, np.ndarray], int], int]:
    """(fill, n) for sorting.sorted_keys: identity << 24 | word id of the n counted tokens, for the word features in mask."""
    first, n = tokens.first, tokens.ids.size - tokens.first
    known = tokens.ids, tokens.attributes, features.hashes, features.shapes, features.classes, features.topics

    def fill(lo: int, hi: int, out: np.ndarray) -> int:
        block = (first + lo) // SNAPSHOT_TOKENS
        at = features.snapshots[block].copy()
        _push_tokens(*known, at, mask, block * SNAPSHOT_TOKENS, first + lo, NO_SNAPSHOTS, NO_KEYS)
        _push_tokens(*known, at, mask, first + lo, first + hi, NO_SNAPSHOTS, out)
        return hi - lo

    return fill, n
