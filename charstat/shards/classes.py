"""Word classes and topics of a text in shards: learned once, from all its words in order, and what each shard must know of the topic.

    survey    a shard's words: which there are, how often each, and all tokens in order, 4 bytes each          on the workers
    learn     the classes, from the places of all words in order, 2 bytes each                               in the building process
    count     the shard's word contexts, with the topic's state at its start                                 on the workers

Classes are clusters over the whole text, so that they are learned in one place, with as much memory as on a single machine: 2 bytes a word, and
some 1.5 GB for the counts of neighbours in a long text. The topic is what a fading sum over all words before says; no history is long enough for it,
so its state is handed from shard to shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.columns import CLASS_COLUMNS, COLUMNS
from charstat.cpu.backend import CPUBackend
from charstat.cpu.classes import MIN_COUNT, OTHER, WORDS, classes_of_places
from charstat.cpu.words import token_features, tokenize
from charstat.ngram.classes import NOTHING, SIGN, TOPIC_STATE, UNKNOWN, WordClasses, follow_topic
from charstat.ngram.contexts import Context
from charstat.ngram.hashing import N_FEATURES
from charstat.ngram.table import CountTable
from charstat.ngram.words import HASH, SymbolInfo, Vocabulary
from charstat.shards.files import finished, read_array, write_file

EMPTY = OTHER - 1  # in a text of places: no word


class TopicState(NamedTuple):
    """What the topic depends on, before some word."""

    sums: np.ndarray  # int32 [TOPIC_STATE]
    features: np.ndarray  # uint64 [N_FEATURES]: only the topic's is used

    def stored(self) -> bytes:
        return self.sums.tobytes() + self.features.tobytes()

    @classmethod
    def opened(cls, data: bytes) -> TopicState:
        return cls(np.frombuffer(data, np.int32, TOPIC_STATE).copy(), np.frombuffer(data, np.uint64, offset=4 * TOPIC_STATE).copy())


def new_state() -> TopicState:
    """At the start of a text."""
    return TopicState(np.zeros(TOPIC_STATE, np.int32), np.zeros(N_FEATURES, np.uint64))


@njit(cache=True, nogil=True)
def _follow(places, numbers, scores, sums, features):
    """Move the state on over tokens, given by their places among the frequent words. numbers: of those, for follow_topic."""
    for t in range(places.shape[0]):
        place = places[t]
        follow_topic(sums, features, NOTHING if place == EMPTY else UNKNOWN if place == OTHER else numbers[place], scores)


# survey ------------------------------------------------------------------------------------------------------------------


def survey_words(path: Path, key: str, symbols: Callable[[], tuple[np.ndarray, int]], info: SymbolInfo) -> list[int]:
    """Write what learning needs of a shard's words; returns [distinct words, words]. symbols: gives (history and text, size of the history).

    The file: hashes uint64, rising, 0 for tokens without a word; counts int64; the tokens in order uint32, as places among the hashes.
    """
    done = finished(path, key)
    if done is not None:
        return done
    tokens = tokenize(*symbols(), info)
    hashes, place = np.unique(tokens.attributes[:, HASH], return_inverse=True)  # one word may end in either separator
    words = place.astype(np.uint32)[tokens.ids[tokens.first :]]
    counts = np.bincount(words, minlength=hashes.size).astype(np.int64)
    counts[hashes == 0] = 0
    return write_file(path, [hashes, counts, words], key, lambda: [int(hashes.size), int(words.size)])


def read_survey(path: Path, sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, m = sizes
    return read_array(path, np.uint64, 0, n), read_array(path, np.int64, 8 * n, n), read_array(path, np.uint32, 16 * n, m)


# learn -------------------------------------------------------------------------------------------------------------------


def learn(surveys: Sequence[tuple[Path, Sequence[int]]], heading: np.uint64, threads: int) -> tuple[WordClasses, list[TopicState]]:
    """The classes of all shards' words, as cpu/classes.py learns them from the whole text; the topic's state before every shard.

    heading: of SymbolInfo.
    """
    known, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    for path, sizes in surveys:
        hashes, more, _ = read_survey(path, sizes)
        known, place = np.unique(np.concatenate([known, hashes]), return_inverse=True)
        sums = np.zeros(known.size, np.int64)
        np.add.at(sums, place, np.concatenate([counts, more]))
        counts = sums
    order = np.argsort(-counts, kind="stable")[:WORDS]
    words = known[order[counts[order] >= MIN_COUNT]]
    text, n = np.empty(sum(size for _, (_, size) in surveys), np.uint16), 0
    for places in _places(surveys, words):
        spoken = places[places != EMPTY]
        text[n : n + spoken.size] = spoken
        n += spoken.size
    text = text[:n]
    classes = classes_of_places(words, text, threads)
    del text
    numbers = np.searchsorted(classes.hashes, words).astype(np.int32)
    numbers[words == heading] = SIGN
    states = [new_state()]
    for places in _places(surveys[:-1], words):
        state = TopicState(states[-1].sums.copy(), states[-1].features.copy())
        if words.size:
            _follow(places, numbers, classes.scores, *state)
        states.append(state)
    return classes, states


def _places(surveys: Sequence[tuple[Path, Sequence[int]]], words: np.ndarray) -> Iterator[np.ndarray]:
    """Every shard's tokens in order, as places among `words`, OTHER for words that are not there, EMPTY for no word: uint16."""
    rank = np.argsort(words)
    ordered = words[rank]
    for path, sizes in surveys:
        hashes, _, text = read_survey(path, sizes)
        place = np.full(hashes.size, OTHER, np.uint16)
        at = np.searchsorted(ordered, hashes)
        at[at == ordered.size] = 0
        if ordered.size:
            found = ordered[at] == hashes
            place[found] = rank[at[found]]
        place[hashes == 0] = EMPTY
        yield place[text]


def store_classes(path: Path, key: str, classes: WordClasses) -> None:
    write_file(path, [part.ravel() for part in classes], key, lambda: [part.size for part in classes])


def open_classes(path: Path, sizes: Sequence[int]) -> WordClasses:
    """What store_classes wrote."""
    flat, at = [], 0
    for name, size in zip(CLASS_COLUMNS, sizes, strict=True):
        flat.append(read_array(path, COLUMNS[name], at, size))
        at += flat[-1].nbytes
    return WordClasses.from_flat(*flat)


# count -------------------------------------------------------------------------------------------------------------------


def count_words(
    engine: CPUBackend,
    symbols: np.ndarray,
    n_history: int,
    contexts: Iterable[Context],
    info: SymbolInfo,
    classes: WordClasses,
    state: TopicState,
) -> Iterator[Vocabulary | CountTable]:
    """What CPUBackend.count yields for word contexts, with the topic going on from `state` at the text's first own token."""
    tokens = tokenize(symbols, n_history, info)
    yield tokens.vocabulary
    features = token_features(tokens, classes, info.heading, tokens.first, state)
    for context in contexts:
        yield engine._word_table(tokens, features, context)
