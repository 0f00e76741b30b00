"""Word classes and topics: what a word stands for, and what the last few hundred words were about.

    classes   every word that was learned (cpu/classes.py) has a class among SMALL and one among LARGE; for any other word its shape
              stands. Fields k1 .. k4 and K1, K2 of the contexts are the classes of the words before:
              0 no word, 1 + class, or 1 + classes + shape
    topic     every word says how well it goes with each topic: a score, about log2 of how much likelier it is there. The scores of a
              text's words are summed up, and the sums fade by 1 / 128 at every word that has scores (the most frequent have none);
              the topic becomes the one with the largest sum: at each of the first YOUNG such words of an article, later at every
              TOPIC_STEP-th. A title begins an article, and the sums anew. Field topic: 0 none yet, 1 + topic

    sum[t] <- sum[t] - sum[t] / 128 + score[word, t]      int8 scores: a sum with its 8 bits of fraction stays under 2**22

A title is a line like " = Homarus gammarus = ", as WikiText has them: the word "=" after a gap (two separators in a row, or the start of
the text), and right after it a word other than "=", which would make it the heading of a section.

All of it is whole numbers, and the stream and the counting run the same few lines: they agree at every word, however a text is cut.
A word is known by its hash (words.HASH), which is made of symbol numbers: classes belong to one alphabet.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.compiled import kernel
from charstat.ngram.hashing import N_FEATURES, TOPIC

SMALL, LARGE = 256, 1024  # classes
TOPICS = 256
TOPIC_STEP = 8  # words with scores between two looks for the best topic
YOUNG = 64  # until an article has so many, there is a look at each; a multiple of TOPIC_STEP
SCORE_UNIT = 31.0  # a score is so many times the natural logarithm
FADE_BITS, FRACTION_BITS = 7, 8
AGE, PLACE = TOPICS, TOPICS + 1  # after the sums: the article's words with scores (from YOUNG on modulo YOUNG); where we are
TOPIC_STATE = TOPICS + 2
AFTER_GAP, IN_LINE, AFTER_SIGN = range(3)  # PLACE; the sign is "="
NOTHING, SIGN, UNKNOWN = -3, -2, -1  # in place of a number: no word; "="; a word without classes
U1 = np.uint64(1)


class WordClasses(NamedTuple):
    """What is known of words beside their letters. The arrays may be empty."""

    hashes: np.ndarray  # uint64 [words], rising: words.HASH
    labels: np.ndarray  # uint16 [words, 2]: the class among SMALL, and among LARGE
    scores: np.ndarray  # int8 [words, TOPICS]; all 0: the word says nothing of the topic

    @property
    def n_bytes(self) -> int:
        return sum(a.nbytes for a in self)

    @classmethod
    def from_flat(cls, hashes: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> WordClasses:
        """From one-dimensional arrays. ValueError unless they fit together and hold what the kernels can read."""
        n = hashes.size
        if labels.size != 2 * n or scores.size != TOPICS * n:
            raise ValueError("the arrays of word classes do not fit together")
        labels = labels.reshape(n, 2)
        if not (hashes[1:] > hashes[:-1]).all() or (labels[:, 0] >= SMALL).any() or (labels[:, 1] >= LARGE).any():
            raise ValueError("the word classes are out of order or out of range")
        return cls(hashes, labels, scores.reshape(n, TOPICS))

    def same_as(self, other: WordClasses) -> bool:
        return all(np.array_equal(a, b) for a, b in zip(self, other, strict=True))


def no_classes() -> WordClasses:
    """Of no words: every word's shape is its class, and there is no topic."""
    return WordClasses(np.empty(0, np.uint64), np.empty((0, 2), np.uint16), np.empty((0, TOPICS), np.int8))


@kernel
def find_word(hashes, wanted):
    """The number of the word with that hash; -1 if there is none. 16 steps for 60,000 words."""
    lo, hi = 0, hashes.shape[0]
    while lo < hi:
        middle = (lo + hi) >> 1
        if hashes[middle] < wanted:
            lo = middle + 1
        else:
            hi = middle
    return lo if lo < hashes.shape[0] and hashes[lo] == wanted else -1


@njit(cache=True, nogil=True, inline="always")
def topic_number(number, word_hash, heading):
    """The number of a word for follow_topic: SIGN for a known "=". heading: the hash of that."""
    return SIGN if number >= 0 and word_hash == heading else number


@njit(cache=True, nogil=True, inline="always")
def class_features(labels, word, shape):
    """(feature k, feature K) of a word: by its classes, or if it has none (word < 0) by its shape."""
    if word < 0:
        return U1 + np.uint64(SMALL) + shape, U1 + np.uint64(LARGE) + shape
    return U1 + np.uint64(labels[word, 0]), U1 + np.uint64(labels[word, 1])


@kernel
def follow_topic(state, features, word, scores):
    """After a token: add its word's scores to the sums, and look for the topic where it is time to.

    word: its topic_number, or NOTHING. state: int32 [TOPIC_STATE]; features[TOPIC] is set, to the lower topic of equals.
    Returns whether an article began.
    """
    place, began = state[PLACE], state[PLACE] == AFTER_SIGN and word >= UNKNOWN
    state[PLACE] = AFTER_GAP if word == NOTHING else AFTER_SIGN if word == SIGN and place == AFTER_GAP else IN_LINE
    if began:
        for t in range(TOPICS + 1):  # the age, too
            state[t] = 0
    if word < 0:
        return began
    says_nothing = True
    for t in range(TOPICS):
        if scores[word, t] != 0:
            says_nothing = False
            break
    if says_nothing:
        return began
    for t in range(TOPICS):
        state[t] += (np.int32(scores[word, t]) << np.int32(FRACTION_BITS)) - (state[t] >> np.int32(FADE_BITS))
    state[AGE] += 1 if state[AGE] < 2 * YOUNG - 1 else 1 - YOUNG
    if state[AGE] < YOUNG or state[AGE] % TOPIC_STEP == 0:
        best = 0
        for t in range(1, TOPICS):
            if state[t] > state[best]:
                best = t
        features[TOPIC] = np.uint64(best) + U1
    return began


@njit(cache=True, nogil=True)
def _describe(hashes, shapes, spoken, heading, classes, features, words):
    for i in range(hashes.shape[0]):
        words[i] = NOTHING
        if spoken[i]:
            number = find_word(classes.hashes, hashes[i])
            features[i, 0], features[i, 1] = class_features(classes.labels, number, shapes[i])
            words[i] = topic_number(number, hashes[i], heading)


def describe_words(
    hashes: np.ndarray, shapes: np.ndarray, spoken: np.ndarray, heading: np.uint64, classes: WordClasses
) -> tuple[np.ndarray, np.ndarray]:
    """(features k and K, uint64 [n, 2]; number for follow_topic, int32 [n]) of the n words of a vocabulary.

    hashes, shapes: uint64 [n]; spoken: bool [n], False for tokens without a word; heading: the hash of "=".
    """
    features, words = np.zeros((hashes.size, 2), np.uint64), np.empty(hashes.size, np.int32)
    _describe(hashes, shapes, spoken, heading, classes, features, words)
    return features, words


@njit(cache=True, nogil=True)
def _topics_of(ids, first, words, scores, state, features, out):
    for t in range(first, ids.shape[0]):
        out[t] = np.uint16(features[TOPIC])
        follow_topic(state, features, words[ids[t]], scores)


def token_topics(ids: np.ndarray, words: np.ndarray, classes: WordClasses, first: int = 0, state: tuple | None = None) -> np.ndarray:
    """The feature topic before every token from number `first` on: uint16 [tokens], 0 before that one.

    ids: uint32 [tokens]; words: from describe_words(); state: (sums, int32 [TOPIC_STATE], and features) before the first one, which
    are changed; None: of the start of a text.
    """
    out = np.zeros(ids.size, np.uint16)
    if classes.scores.size:
        state = state or (np.zeros(TOPIC_STATE, np.int32), np.zeros(N_FEATURES, np.uint64))
        _topics_of(ids, first, words, classes.scores, *state, out)
    return out
