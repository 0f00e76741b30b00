"""What the word classes and topics of a model are, in words: for a person to look at.

A class is shown by its most frequent words. A topic is shown by the words that say most for it: those with the largest
P(word | topic) ln(P(word | topic) / P(word)), the ratio as the topic's score has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from charstat.errors import UserError
from charstat.ngram.classes import LARGE, SCORE_UNIT, SMALL, TOPICS, find_word
from charstat.ngram.words import HASH, LENGTH, WORD_STATE, extend_word, model_symbol_info, packed_symbol, vocabulary_words

if TYPE_CHECKING:
    from charstat.model import Model


@njit(cache=True, nogil=True)
def _owners(packed, lengths, info, hashes, owners):
    """owners[w] := the number among the classes' words of vocabulary word w, which may end in either separator; -1 for none."""
    state = np.zeros(WORD_STATE, np.uint64)
    for w in range(lengths.shape[0]):
        state[:] = np.uint64(0)
        for d in range(lengths[w]):
            symbol = np.int64(packed_symbol(packed, w, d))
            if info.separator[symbol]:
                break
            extend_word(state, symbol, info)
        owners[w] = find_word(hashes, state[HASH]) if state[LENGTH] > np.uint64(0) else -1


def class_words(model: Model) -> tuple[list[str], np.ndarray]:
    """(spelling, count) of every word that has classes, by its number. Counts are those of the context p; all 0 without it.

    UserError if the model has no word classes.
    """
    classes = model.classes
    if not classes.hashes.size:
        raise UserError("the model has no word classes: build with contexts that look at them (--contexts default)")
    packed, lengths = vocabulary_words(model.vocabulary)
    owners = np.empty(lengths.size, np.int64)
    _owners(packed, lengths, model_symbol_info(model.alphabet), classes.hashes, owners)
    of_words = np.zeros(lengths.size, np.int64)
    if "p" in model.tables:
        table = model.tables["p"]
        of_words[table.symbols()] = table.counts()
    counts = np.zeros(classes.hashes.size, np.int64)
    known = np.flatnonzero(owners >= 0)
    np.add.at(counts, owners[known], of_words[known])
    names = [""] * counts.size  # "" for a word that this model's text lacks: its classes are another text's
    chars = [*model.alphabet.chars, *"\ufffd" * (128 - len(model.alphabet.chars))]
    for w in known.tolist():
        symbols = [int(packed_symbol(packed, w, d)) for d in range(int(lengths[w]))]
        names[owners[w]] = "".join(chars[s] for s in symbols).rstrip(" \n")
    return names, counts


def class_rows(model: Model, examples: int = 10) -> dict[str, list[dict[str, Any]]]:
    """{"small", "large", "topics"}: of each class its number, how many words it has, and the most frequent of them; of each topic its marks.

    UserError if the model has no word classes.
    """
    names, counts = class_words(model)
    labels, scores = model.classes.labels, model.classes.scores
    rows: dict[str, list[dict[str, Any]]] = {"small": [], "large": [], "topics": []}
    for which, part, size in ((0, "small", SMALL), (1, "large", LARGE)):
        order = np.lexsort((np.arange(counts.size), -counts, labels[:, which]))
        starts = np.searchsorted(labels[order, which], np.arange(size + 1))
        for c in range(size):
            members = order[starts[c] : starts[c + 1]]
            shown = [names[w] for w in members[:examples].tolist()]
            rows[part].append({"class": c, "words": members.size, "count": int(counts[members].sum()), "examples": shown})
    for t in range(TOPICS):
        ratio = scores[:, t] / SCORE_UNIT
        marks = np.argsort(-counts * np.exp(ratio) * ratio, kind="stable")[:examples]
        rows["topics"].append({"topic": t, "marks": [names[w] for w in marks.tolist() if ratio[w] > 0]})
    return rows
