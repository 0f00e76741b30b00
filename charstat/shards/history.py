"""What the counting of a shard must know of all the text before it, as a short text: its history.

A context looks at the last characters, at the last four words, and at the last word that starts with a digit or a capital, however far
back (ngram/contexts.py). So a few words stand for any text, in their order, and for every context they are the same as the whole:

    the first word                     it may go on from the text before
    the last word with a digit, the last with a capital
    the last four words, and those that the last 24 characters lie in
    what comes after the last separator

A word of more than 32 characters is known by those; of a longer one, 32 at its start and 24 at its end are kept. Histories are carried
from piece to piece: summary(a + b) = summary(summary(a) + summary(b)), for every use that contexts make of them.

Not so for topics, which look at a fading sum over all words.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from charstat.ngram.contexts import MAX_ORDER
from charstat.ngram.words import MAX_WORD, SymbolInfo
from charstat.tree import DIGIT, UPPER

WORDS = 4  # that contexts look back


def summary(symbols: np.ndarray, info: SymbolInfo) -> np.ndarray:
    """The symbols that stand for a text as history: uint8, in the order of the text."""
    n = symbols.size
    if n == 0:
        return symbols
    separators = np.flatnonzero(info.separator[symbols])
    starts = np.concatenate([np.zeros(1, np.int64), separators + 1])  # of every token, the unfinished last one included
    stops = np.append(separators, n)  # where its word ends
    spoken = np.flatnonzero(stops[:-1] > starts[:-1])
    kinds = info.kind[symbols[starts[spoken]]]
    kept = {0, starts.size - 1, *spoken[-WORDS:].tolist()}
    for kind in (DIGIT, UPPER):
        kept.update(spoken[np.flatnonzero(kinds == kind)[-1:]].tolist())
    kept.update(range(int(np.searchsorted(stops, n - MAX_ORDER, "left")), starts.size))
    parts = []
    for token in sorted(kept):
        start, stop = int(starts[token]), int(stops[token])
        if stop - start > MAX_WORD + MAX_ORDER:
            parts.append(symbols[start : start + MAX_WORD])
            start = stop - MAX_ORDER
        parts.append(symbols[start : stop + 1])
    return np.concatenate(parts)


def carried(summaries: Iterable[np.ndarray], info: SymbolInfo) -> list[np.ndarray]:
    """The history of every shard, of their summaries in order; that of the first is empty."""
    histories = [np.empty(0, np.uint8)]
    for one in summaries:
        histories.append(summary(np.concatenate([histories[-1], one]), info))
    return histories[:-1]
