"""The vocabularies of the shards as one: which id each shard's words have in the whole text's vocabulary.

A vocabulary of more than MAX_WORDS words keeps the most frequent ones, of equals the first in the order of symbols: word ids have 24 bits.
The other words are context, and nothing else: no table counts them.

Vocabularies are merged a few at a time, and those again. A file of words: packed uint64 [n, PACKS], lengths uint8 [n], counts int64 [n].
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.manifest import MAX_WORDS
from charstat.ngram.words import PACKS, Vocabulary, build_trie, vocabulary_words
from charstat.shards.count import open_job
from charstat.shards.files import digest_of, finished, read_array, write_file
from charstat.storage import open_model

FAN_IN = 8  # vocabularies merged in one task
NO_WORD = np.uint32(0xFFFFFFFF)
U0 = np.uint64(0)


class Words(NamedTuple):
    """Words in the order of their symbols."""

    packed: np.ndarray  # uint64 [n, PACKS]
    lengths: np.ndarray  # uint8 [n]
    counts: np.ndarray  # int64 [n]: how often each was counted


@njit(cache=True, nogil=True, inline="always")
def _compare(a, i, b, j):
    """-1, 0 or 1: how word i of a stands to word j of b."""
    for k in range(a.shape[1]):
        if a[i, k] != b[j, k]:
            return -1 if a[i, k] < b[j, k] else 1
    return 0


@njit(cache=True, nogil=True)
def _union(a, a_lengths, a_counts, b, b_lengths, b_counts, out, lengths, counts):
    """The words of both, in order, with their counts added; returns how many."""
    i = j = n = 0
    while i < a.shape[0] or j < b.shape[0]:
        side = 1 if i == a.shape[0] else -1 if j == b.shape[0] else _compare(a, i, b, j)
        counts[n] = 0
        if side <= 0:
            for k in range(a.shape[1]):
                out[n, k] = a[i, k]
            lengths[n] = a_lengths[i]
            counts[n] += a_counts[i]
            i += 1
        if side >= 0:
            for k in range(b.shape[1]):
                out[n, k] = b[j, k]
            lengths[n] = b_lengths[j]
            counts[n] += b_counts[j]
            j += 1
        n += 1
    return n


@njit(cache=True, nogil=True)
def _places(words, among, ids):
    """ids[i] := the number of word i in `among`, NO_WORD if it is not there; both are in order."""
    j = 0
    for i in range(words.shape[0]):
        side = 1
        while j < among.shape[0]:
            side = _compare(words, i, among, j)
            if side <= 0:
                break
            j += 1
        ids[i] = np.uint32(j) if j < among.shape[0] and side == 0 else NO_WORD


@njit(cache=True, nogil=True)
def _add_counts(ids, sums, counts):
    for r in range(ids.shape[0]):
        counts[ids[r]] += np.int64(sums[r + 1]) - np.int64(sums[r])


def union(a: Words, b: Words) -> Words:
    """All words of both, their counts added."""
    n = a.lengths.size + b.lengths.size
    packed, lengths, counts = np.empty((n, PACKS), np.uint64), np.empty(n, np.uint8), np.empty(n, np.int64)
    n = _union(*a, *b, packed, lengths, counts)
    return Words(packed[:n], lengths[:n], counts[:n])


def most_frequent(words: Words, most: int = MAX_WORDS) -> Words:
    """The `most` words with the highest counts, in the order of their symbols."""
    if words.lengths.size <= most:
        return words
    kept = np.sort(np.argsort(-words.counts, kind="stable")[:most])
    return Words(words.packed[kept], words.lengths[kept], words.counts[kept])


def shard_words(path: Path, word_context: str) -> Words:
    """The words of a counted shard; counts by one of its word contexts, all of which count every word once."""
    manifest, columns = open_model(path)
    vocabulary = Vocabulary(columns["first_child"], columns["trie_symbol"], columns["first_id"], manifest["words"])
    packed, lengths = vocabulary_words(vocabulary)
    counts, e = np.zeros(lengths.size, np.int64), manifest["tables"][word_context]
    if e["rows"]:
        rows = columns["rows"][e["row_at"] : e["row_at"] + e["rows"]]
        _add_counts(rows, columns["sums"][e["sum_at"] : e["sum_at"] + e["rows"] + 1], counts)
    return Words(packed, lengths, counts)


def merge_words(folder: Path, name: str, level: int, number: int, parts: Sequence[str], last: bool) -> str:
    """Merge some vocabularies, of shards or of earlier merges; returns the name of the file. last: keep MAX_WORDS of them."""
    job = open_job(folder, name)
    path, key = folder / f"{level:02}-{number:06}.words", digest_of([job.key, list(parts), last])
    if finished(path, key) is None:
        context = next(c.name for c in job.contexts if c.is_words)
        words = None
        for part in parts:
            one = shard_words(folder / part, context) if part.endswith(".shard") else read_words(folder, part)
            words = one if words is None else union(words, one)
        found = most_frequent(words) if last else words
        facts = {
            "words": int(found.lengths.size),
            "dropped": int(words.lengths.size - found.lengths.size),
            "counted": int(words.counts.sum()),
        }
        write_file(path, found, key, lambda: facts)
    return path.name


def read_words(folder: Path, name: str) -> Words:
    path = folder / name
    n = path.stat().st_size // (8 * PACKS + 1 + 8)
    packed = read_array(path, np.uint64, 0, n * PACKS).reshape(n, PACKS)
    return Words(packed, read_array(path, np.uint8, 8 * PACKS * n, n), read_array(path, np.int64, (8 * PACKS + 1) * n, n))


def map_words(folder: Path, name: str, shard: str, words: str) -> str:
    """Write the ids of a shard's words in the whole vocabulary, uint32; returns the file's name."""
    job = open_job(folder, name)
    path, key = folder / f"shard-{Path(shard).stem}.ids", digest_of([job.key, shard, words])
    if finished(path, key) is None:
        context = next(c.name for c in job.contexts if c.is_words)
        own = shard_words(folder / shard, context)
        ids = np.empty(own.lengths.size, np.uint32)
        _places(own.packed, read_words(folder, words).packed, ids)
        write_file(path, [ids], key, dict)
    return path.name


def vocabulary_of(words: Words) -> Vocabulary:
    """The vocabulary as the model stores it."""
    if not words.lengths.size:
        return Vocabulary(np.empty(0, np.uint32), np.empty(0, np.uint8), np.empty(0, np.uint32), 0)
    return build_trie(words.packed, words.lengths)
