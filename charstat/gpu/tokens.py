"""Words on the device: tokens, vocabulary, word ids, and the keys of word contexts. What a word is: ngram/words.py.

    edges        where tokens start, from the positions of separators
    vocabulary   the distinct 64-bit hashes of the tokens (sort, unique); the first token of each hash gives its symbols, packed
    ids          rank of a token's hash among them, then its place in lexicographic order (four stable argsorts of packed words)
    classes      the features k and K of every word and the topic before every token come from the host: uint16 each
    features     what a word context looks at, from three prefix sums and the words' attributes: the r words before a token are
                 spoken[: r], so its w1 is the last of them; the last number is numbers[how many of them start with a digit]

    tokens       the  cat  _  sat            r          0  1  2  2      ("_": an empty token, two separators in a row)
    spoken       the  cat  sat               w1         -  the  cat  cat

The words' own attributes (their hash in lower case, shape, suffix) come from the stream's push_word(), which runs on the host once for
each word of the vocabulary, while the device counts characters. The trie is made there, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from charstat.errors import ResourceError
from charstat.gpu.arrays import Array, Arrays, spans
from charstat.gpu.keys import Text, mix64
from charstat.gpu.memory import chunk_size
from charstat.ngram.classes import WordClasses, describe_words, token_topics
from charstat.ngram.hashing import N_FEATURES, ODD_B, SEED, SYMBOL_BITS, U24, WORD_FEATURES, WORD_ID_BITS
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
    packed_symbol,
    push_word,
    word_shape,
)
from charstat.tree import DIGIT, UPPER

BEFORE = 4  # w1 .. w4: entries without a word before the first spoken word
NO_CLASS = np.uint64(0)  # these features are made apart: class_columns()
W1, SHAPES, LOWER1, SUFFIX, ENDING = (WORD_FEATURES.index(f) for f in ("w1", "shapes", "lower1", "suffix", "suffixes"))


class TokenIds(NamedTuple):
    """The text as word ids, and the vocabulary's words in order of their ids."""

    ids: Array  # uint32 [tokens]
    empty: Array  # bool [tokens]: no symbol but the separator
    first: int  # tokens before this one belong to the history
    packed: list[Array]  # PACKS of uint64 [words]
    lengths: Array  # uint8 [words]


class Attributes(NamedTuple):
    """For each word of the vocabulary, and for "no word" last: what it adds to the features when it becomes w1. Host arrays."""

    hash: np.ndarray  # uint64 [words + 1]
    lower: np.ndarray  # uint64
    shape: np.ndarray  # uint64
    suffix: np.ndarray  # uint64
    ending: np.ndarray  # uint64: the lower half of the feature "suffixes"
    number: np.ndarray  # bool: starts with a digit
    capital: np.ndarray  # bool
    spoken: np.ndarray  # bool: there is a word


class WordTokens(NamedTuple):
    """What the keys of word contexts are made of. "No word" has the id `words`; spoken starts with BEFORE of it."""

    ids: Array  # uint32 [tokens]
    rank: Array  # uint32 [tokens]: words before the token
    spoken: Array  # uint32 [BEFORE + words in the text]: ids of the tokens that are not empty
    columns: list[Array]  # Attributes.hash .. ending
    classes: list[Array]  # of the vocabulary's words and of no word: the features k and K, uint16 [words + 1] each
    topics: Array  # uint16 [tokens]: the feature topic before each token
    numbers_before: Array  # uint32 [words in the text + 1]: how many of the first r words start with a digit
    numbers: Array  # uint32: no word, then the ids of the words that do
    capitals_before: Array
    capitals: Array
    first: int

    @property
    def n(self) -> int:
        """How many tokens are counted."""
        return self.ids.size - self.first


def tokenize(arrays: Arrays, text: Text, n_history: int, info: SymbolInfo, parts: int = 1) -> TokenIds:
    """The tokens of a text whose first `n_history` symbols are history. parts: hash 1/parts of what would fit at once.

    ResourceError above 2**24 distinct words; MemoryError.
    """
    xp = arrays.xp
    ends = xp.flatnonzero(arrays.to_device(info.separator.astype(np.bool_))[text.symbols])
    edges = xp.zeros(ends.size + 1, np.int64)
    edges[1:] = ends + np.int64(1)
    del ends
    chunk = max(1, chunk_size(edges.size - 1, arrays.free_bytes(), arrays.chunk) // parts)
    hashes = _distinct_hashes(arrays, text, edges, chunk)
    if hashes.size > 1 << WORD_ID_BITS:
        raise ResourceError(f"more than {1 << WORD_ID_BITS:,} distinct words: build without word contexts (--contexts chars)")
    ids, samples = _number(arrays, text, edges, hashes, chunk)
    starts = edges[samples]
    lengths = xp.minimum(edges[samples + np.int64(1)] - starts, np.int64(MAX_WORD))
    packed = _pack(xp, text.symbols, starts, lengths)
    order = lexicographic(arrays, packed)
    rank = xp.empty(order.size, np.uint32)
    rank[order] = xp.arange(order.size, dtype=np.uint32)
    for lo, hi in spans(ids.size, chunk):
        ids[lo:hi] = rank[ids[lo:hi]]
    # A token belongs to the text that holds its separator, its last symbol.
    first = int(arrays.to_host(xp.searchsorted(edges[1:], arrays.to_device(np.array([n_history], np.int64)), "right"))[0])
    empty = edges[1:] - edges[:-1] == np.int64(1)
    return TokenIds(ids, empty, first, [p[order] for p in packed], lengths[order].astype(np.uint8))


def token_hashes(arrays: Arrays, text: Text, edges: Array) -> Array:
    """The hash of every token: uint64 [edges.size - 1]."""
    n = edges.size - 1
    out = arrays.xp.empty(n, np.uint64)
    if not arrays.launch("token_hashes", n, text.symbols, edges, np.int64(n), out):
        out[:] = _token_hashes(arrays.xp, text.symbols, edges)
    return out


def _token_hashes(xp: Any, symbols: Array, edges: Array) -> Array:
    sizes = edges[1:] - edges[:-1]
    hashes = xp.zeros(sizes.size, np.uint64)
    for j in range(MAX_WORD):
        longer = xp.flatnonzero(sizes > np.int64(j))
        if longer.size == 0:
            break
        h = (hashes[longer] + symbols[edges[longer] + np.int64(j)].astype(np.uint64) + np.uint64(1)) * ODD_B
        hashes[longer] = h ^ (h >> np.uint64(32))
    return hashes


def _distinct_hashes(arrays: Arrays, text: Text, edges: Array, chunk: int) -> Array:
    """The distinct hashes of all tokens, rising: chunks are sorted and made unique, then what is left of them together."""
    xp = arrays.xp
    parts = []
    for lo, hi in spans(edges.size - 1, chunk):
        parts.append(_unique(arrays, token_hashes(arrays, text, edges[lo : hi + 1])))
    if len(parts) == 1:
        return parts[0]
    return _unique(arrays, xp.concatenate(parts)) if parts else xp.empty(0, np.uint64)


def _unique(arrays: Arrays, keys: Array) -> Array:
    xp = arrays.xp
    arrays.sort(keys)
    flags = xp.ones(keys.size, np.bool_)
    flags[1:] = keys[1:] != keys[:-1]
    return keys[xp.flatnonzero(flags)]


def _number(arrays: Arrays, text: Text, edges: Array, hashes: Array, chunk: int) -> tuple[Array, Array]:
    """(ids, samples): each token's place among the hashes (uint32), and the first token of each hash (int64)."""
    xp = arrays.xp
    n = edges.size - 1
    ids = xp.empty(n, np.uint32)
    samples = xp.full(hashes.size, n, np.uint32)  # subtle: CuPy has no atomic minimum of int64
    for lo, hi in spans(n, chunk):
        places = xp.searchsorted(hashes, token_hashes(arrays, text, edges[lo : hi + 1]))
        xp.minimum.at(samples, places, xp.arange(lo, hi, dtype=np.uint32))
        ids[lo:hi] = places.astype(np.uint32)
    return ids, samples.astype(np.int64)


def _pack(xp: Any, symbols: Array, starts: Array, lengths: Array) -> list[Array]:
    """The first `lengths` symbols from each start, PACK to a uint64, first symbol highest, zeros behind: PACKS arrays."""
    packed = []
    for p in range(PACKS):
        words = xp.zeros(starts.size, np.uint64)
        for d in range(p * PACK, min((p + 1) * PACK, MAX_WORD)):
            longer = xp.flatnonzero(lengths > np.int64(d))
            if longer.size == 0:
                break
            shift = np.uint64(SYMBOL_BITS * (PACK - 1 - d % PACK))
            words[longer] = words[longer] | (symbols[starts[longer] + np.int64(d)].astype(np.uint64) << shift)
        packed.append(words)
    return packed


def lexicographic(arrays: Arrays, columns: list[Array]) -> Array:
    """The indices that sort rows by the first column, then the second, and so on, by stable sorts from the last column to the first."""
    order = arrays.argsort(columns[-1])
    for column in reversed(columns[:-1]):
        order = order[arrays.argsort(column[order])]
    return order


def describe(packed: list[np.ndarray], lengths: np.ndarray, info: SymbolInfo) -> tuple[Vocabulary, Attributes]:
    """The trie and the attributes of a vocabulary in order. Host arrays; the loops run without the GIL."""
    n = lengths.size
    columns = np.ascontiguousarray(np.stack(packed, axis=1))
    features, kinds = np.zeros((N_FEATURES, n + 1), np.uint64), np.full(n + 1, -1, np.int64)
    _describe(columns, lengths, info, features, kinds)
    chosen = (features[f] for f in (W1, LOWER1, SHAPES, SUFFIX, ENDING))
    return build_trie(columns, lengths), Attributes(*chosen, kinds == DIGIT, kinds == UPPER, kinds >= 0)


@njit(cache=True, nogil=True)
def _describe(packed, lengths, info, features, kinds):
    """Column w of features: what push_word makes of word w alone. kinds: the class of its first character."""
    pushed = np.zeros(N_FEATURES, np.uint64)
    word = np.zeros(WORD_STATE, np.uint64)
    for w in range(lengths.shape[0]):
        word[:] = np.uint64(0)
        for d in range(lengths[w]):
            symbol = np.int64(packed_symbol(packed, w, d))
            if info.separator[symbol]:
                break
            extend_word(word, symbol, info)
        if word[LENGTH] == np.uint64(0):
            continue
        pushed[:] = np.uint64(0)
        shape = word_shape(word[LENGTH], word[FIRST_KIND], word[LAST_THREE])
        push_word(pushed, word[HASH], word[LOWER_HASH], shape, word[FIRST_KIND], word[LAST_THREE], NO_CLASS, NO_CLASS)
        features[:, w] = pushed
        kinds[w] = np.int64(word[FIRST_KIND])


def class_columns(ids: np.ndarray, attributes: Attributes, classes: WordClasses, heading: np.uint64) -> list[np.ndarray]:
    """The features k and K of every word, and the feature topic before every token: uint16, made on the host.

    ids: of the tokens; heading: of SymbolInfo.
    """
    features, words = describe_words(attributes.hash, attributes.shape, attributes.spoken, heading, classes)
    return [*features.T.astype(np.uint16), token_topics(ids, words, classes)]


def word_tokens(arrays: Arrays, tokens: TokenIds, attributes: Attributes, classes: list[np.ndarray]) -> WordTokens:
    """What the keys need beside the ids: which words stand before every token, and which of those are numbers and capitals.

    classes: from class_columns().
    """
    xp = arrays.xp
    nothing = np.uint32(attributes.hash.size - 1)
    spoken_at = xp.flatnonzero(xp.logical_not(tokens.empty))
    spoken = xp.full(BEFORE + spoken_at.size, nothing, np.uint32)
    spoken[BEFORE:] = tokens.ids[spoken_at]
    del spoken_at
    rank = xp.zeros(tokens.ids.size + 1, np.uint32)
    rank[1:] = xp.cumsum(xp.logical_not(tokens.empty), dtype=np.uint32)
    flagged = [_flagged(arrays, spoken, flags, nothing) for flags in (attributes.number, attributes.capital)]
    columns = [arrays.to_device(a) for a in attributes[:5]]
    small, large, topics = (arrays.to_device(a) for a in classes)
    return WordTokens(tokens.ids, rank[:-1], spoken, columns, [small, large], topics, *flagged[0], *flagged[1], tokens.first)


def _flagged(arrays: Arrays, spoken: Array, flags: np.ndarray, nothing: np.uint32) -> tuple[Array, Array]:
    """(how many of the first r words are flagged, the flagged words after "no word")."""
    xp = arrays.xp
    marks = arrays.to_device(flags)[spoken[BEFORE:]]
    before = xp.zeros(marks.size + 1, np.uint32)
    before[1:] = xp.cumsum(marks, dtype=np.uint32)
    words = spoken[BEFORE:][xp.flatnonzero(marks)]
    return before, xp.concatenate([xp.full(1, nothing, np.uint32), words])


def word_keys(arrays: Arrays, tokens: WordTokens, mask: int) -> Callable[[int, Array], None]:
    """fill() for sorting.sorted_pieces: identity << 24 | word id of the counted tokens, for the word features in mask."""

    def fill(lo: int, out: Array) -> None:
        first, n = tokens.first + lo, out.size
        sources = (tokens.ids, tokens.rank, tokens.spoken, *tokens.columns, *tokens.classes, tokens.topics)
        flagged = (tokens.numbers_before, tokens.numbers, tokens.capitals_before, tokens.capitals)
        if not arrays.launch("word_keys", n, *sources, *flagged, np.int32(mask), np.int64(first), np.int64(n), out):
            h = _word_hashes(arrays.xp, tokens, mask, first, n)
            out[:] = ((h >> U24) << U24) | tokens.ids[first : first + n].astype(np.uint64)

    return fill


def _word_hashes(xp: Any, tokens: WordTokens, mask: int, first: int, n: int) -> Array:
    """hashing.word_hash of the tokens first .. first + n."""
    with np.errstate(over="ignore"):
        h = xp.full(n, SEED + np.uint64(mask), np.uint64)
    rank = tokens.rank[first : first + n]
    hashes, lower, shape, suffix, ending = tokens.columns

    def word(back: int) -> Array:
        return tokens.spoken[rank + np.uint32(BEFORE - back)]

    def feature(name: str) -> Array:
        if name in ("w1", "w2", "w3", "w4"):
            return hashes[word(int(name[1]))]
        if name == "shapes":
            parts = [shape[word(back)] << np.uint64(8 * (back - 1)) for back in (1, 2, 3, 4)]
            return parts[0] | parts[1] | parts[2] | parts[3]
        if name == "number":
            return hashes[tokens.numbers[tokens.numbers_before[rank]]]
        if name == "capital":
            return hashes[tokens.capitals[tokens.capitals_before[rank]]]
        if name in ("lower1", "lower2"):
            return lower[word(int(name[-1]))]
        if name == "suffix":
            return suffix[word(1)]
        if name[0] in "kK" and len(name) == 2:
            return tokens.classes[name[0] == "K"][word(int(name[1]))].astype(np.uint64)
        if name == "topic":
            return tokens.topics[first : first + n].astype(np.uint64)
        return (ending[word(2)] << np.uint64(16)) | ending[word(1)]

    for j, name in enumerate(WORD_FEATURES):
        if mask >> j & 1:
            h = mix64(h ^ feature(name))
    return h
