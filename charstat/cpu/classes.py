"""Learning word classes and topics from the tokens of a text, by counting: see ngram/classes.py for what they are.

    words      the WORDS most frequent ones that came MIN_COUNT times or more
    classes    rows: words; columns: the NEIGHBOURS most frequent words, one and two places before and after, in four blocks.
               Every cluster begins with one of the most frequent words
    topics     rows: passages of PASSAGE words each, the QUIET most frequent ones and all without classes left out;
               columns: words. Every cluster begins with a run of passages, and the runs are spread evenly over the text

What clustering means here: clustering.py. A word's scores are its log ratios in the topics, in steps of 1 / SCORE_UNIT.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from charstat.cpu.clustering import Clustering, Counts, run_spans
from charstat.ngram.classes import LARGE, SCORE_UNIT, SMALL, TOPICS, WordClasses

WORDS, MIN_COUNT = 60_000, 5
NEIGHBOURS = 1_500
PLACES = ((1, False), (1, True), (2, False), (2, True))  # (how far away, whether after the word)
QUIET = 100
PASSAGE, RUN = 128, 16  # words in a passage; passages that a topic begins with, at most
CLASS_ROUNDS, TOPIC_ROUNDS = 5, 8
CLASS_PRIOR, TOPIC_PRIOR = 20.0, 2_000.0  # counts; a cluster of passages has some 10,000 in 25 M characters of text
LEAST_RATIO, MOST_RATIO = -2.0, 4.0
OTHER = np.uint16(0xFFFF)  # a word without classes


def learn_classes(ids: np.ndarray, hashes: np.ndarray, spoken: np.ndarray, threads: int) -> WordClasses:
    """The classes of a text's words, and its topics.

    ids: uint32 [tokens], the text; hashes: uint64 [words], spoken: bool [words] (False: a token without a word), of the vocabulary.
    """
    return classes_of_places(*_frequent(ids, hashes, spoken), threads)


def classes_of_places(words: np.ndarray, text: np.ndarray, threads: int) -> WordClasses:
    """The classes and topics of these words, the most frequent first, in a text of their places: see _frequent()."""
    assert WORDS < OTHER
    if not words.size:
        return WordClasses(words, np.empty((0, 2), np.uint16), np.empty((0, TOPICS), np.int8))
    with ThreadPoolExecutor(threads) as pool:
        rows = neighbour_counts(text, words.size, pool)
        labels = [cluster_words(rows, size, pool, threads) for size in (SMALL, LARGE)]
        del rows
        scores = topic_scores(text, words.size, pool, threads)
    order = np.argsort(words)
    return WordClasses(words[order], np.stack(labels, axis=1)[order].astype(np.uint16), scores[order])


def _frequent(ids: np.ndarray, hashes: np.ndarray, spoken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(hashes of the most frequent words, the most frequent first; the text's words as places among those, or OTHER: uint16)."""
    n = spoken.size
    known, word_of = np.unique(np.where(spoken, hashes, 0), return_inverse=True)  # one word may end in either separator
    counts = np.zeros(known.size, np.int64)
    np.add.at(counts, word_of, np.bincount(ids, minlength=n))
    counts[word_of[~spoken]] = 0
    order = np.argsort(-counts, kind="stable")[:WORDS]
    order = order[counts[order] >= MIN_COUNT]
    place = np.full(known.size, OTHER, np.uint16)
    place[order] = np.arange(order.size, dtype=np.uint16)
    return known[order], _places(ids, place[word_of], spoken)


@njit(cache=True, nogil=True)
def _places(ids, place, spoken):
    out, n = np.empty(ids.shape[0], np.uint16), 0
    for t in range(ids.shape[0]):
        if spoken[ids[t]]:
            out[n] = place[ids[t]]
            n += 1
    return out[:n]


@njit(cache=True, nogil=True)
def _count_neighbours(text, distance, after, counts):
    """counts[word, neighbour] += 1: uint32 [words, neighbours]."""
    for t in range(distance, text.shape[0]):
        word, neighbour = text[t], text[t - distance]
        if after:
            word, neighbour = neighbour, word
        if word != OTHER and neighbour < counts.shape[1]:
            counts[word, neighbour] += np.uint32(1)


@njit(cache=True, nogil=True)
def _compress(counts, first_column, at, columns, values):
    """Append the counts of every word to its row, from at[word] on, which moves on; without room only at moves."""
    for i in range(counts.shape[0]):
        p = at[i]
        for j in range(counts.shape[1]):
            if counts[i, j] != 0:
                if columns.shape[0]:
                    columns[p], values[p] = np.uint32(first_column + j), np.float32(counts[i, j])
                p += 1
        at[i] = p


def neighbour_counts(text: np.ndarray, words: int, pool: ThreadPoolExecutor) -> Counts:
    """How often each word had each of the most frequent words at each of PLACES. text: uint16, from _frequent()."""
    width = min(NEIGHBOURS, words)
    dense = [np.zeros((words, width), np.uint32) for _ in PLACES]
    sizes = [np.zeros(words, np.int64) for _ in PLACES]
    nothing = np.empty(0, np.uint32), np.empty(0, np.float32)

    def count(i: int, lo: int, hi: int) -> None:
        _count_neighbours(text, *PLACES[i], dense[i])
        _compress(dense[i], 0, sizes[i], *nothing)

    run_spans(pool, len(PLACES), len(PLACES), count)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sum(sizes))])
    columns, values = np.empty(starts[-1], np.uint32), np.empty(starts[-1], np.float32)
    firsts = np.cumsum([starts[:-1], *sizes[:-1]], axis=0)
    run_spans(pool, len(PLACES), len(PLACES), lambda i, lo, hi: _compress(dense[i], i * width, firsts[i], columns, values))
    return Counts(starts, columns, values, len(PLACES) * width)


def cluster_words(rows: Counts, size: int, pool: ThreadPoolExecutor, threads: int) -> np.ndarray:
    """The class of every word, among `size`: int32 [words]."""
    labels = np.full(rows.n, -1, np.int32)
    labels[:size] = np.arange(min(size, rows.n))
    found = Clustering(rows, labels, size, rows.width // len(PLACES), CLASS_PRIOR, pool, threads)
    for _ in range(CLASS_ROUNDS):
        if not found.join(leave_out=False):
            break
    return found.labels


@njit(cache=True, nogil=True)
def _fill_passages(text, words, starts, columns, values):
    seen = np.zeros(words, np.int64)
    at = 0
    for i in range(starts.shape[0] - 1):
        starts[i] = at
        passage = text[i * PASSAGE : (i + 1) * PASSAGE]
        for word in passage:
            seen[word] += 1
        for word in passage:
            if seen[word]:
                columns[at], values[at] = np.uint32(word), np.float32(seen[word])
                seen[word] = 0
                at += 1
    starts[starts.shape[0] - 1] = at
    return at


def passage_counts(text: np.ndarray, words: int) -> Counts:
    """How often each word came in each passage. text: uint16, from _frequent()."""
    text = text[(text >= QUIET) & (text != OTHER)]
    n = text.size // PASSAGE
    starts, columns, values = np.empty(n + 1, np.int64), np.empty(n * PASSAGE, np.uint32), np.empty(n * PASSAGE, np.float32)
    at = _fill_passages(text, words, starts, columns, values)
    return Counts(starts, columns[:at], values[:at], words)


def topic_scores(text: np.ndarray, words: int, pool: ThreadPoolExecutor, threads: int) -> np.ndarray:
    """The scores of every word in every topic: int8 [words, TOPICS]."""
    rows = passage_counts(text, words)
    labels = np.full(rows.n, -1, np.int32)
    topics = min(TOPICS, rows.n)
    for k in range(topics):  # the first half, or more, of an even share of the passages, so that they do not touch
        lo, hi = rows.n * k // topics, rows.n * (k + 1) // topics
        labels[lo : lo + min(RUN, (hi - lo + 1) // 2)] = k
    found = Clustering(rows, labels, TOPICS, words, TOPIC_PRIOR, pool, threads)
    for _ in range(TOPIC_ROUNDS):
        if not found.join(leave_out=True):
            break
    ratios = found.log_ratios()
    ratios[:, np.bincount(found.labels, minlength=TOPICS) == 0] = LEAST_RATIO  # no topic, which must not win
    ratios[:QUIET] = 0.0
    return np.rint(np.clip(ratios, LEAST_RATIO, MOST_RATIO) * SCORE_UNIT).astype(np.int8)
