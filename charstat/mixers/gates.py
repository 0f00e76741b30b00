"""What the longest context knows, for gates: they show whoever mixes a net by hand where the counts are worth trusting.

For the longest character context that was seen before, with static and online counts added up: its order, how often it was seen, how many
different symbols followed, and the entropy of those counts.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numba import njit

from charstat.mixers.lookups import prepare
from charstat.mixers.state import END, KIND, LENGTH, LIST, PARAM, START
from charstat.ngram.hashing import CHARS
from charstat.ngram.overlay import FAST, UNIT, entry_count, entry_symbol
from charstat.ngram.table import row_count, row_symbol
from charstat.tree import SYMBOLS


class Evidence(NamedTuple):
    """Before each of n characters; of the longest character context with counts."""

    order: np.ndarray  # int16 [n]; -1 if no context has any
    count: np.ndarray  # float32 [n]: static counts, and online ones, which fade
    distinct: np.ndarray  # int16 [n]: symbols that followed it
    entropy: np.ndarray  # float32 [n], bits

    @classmethod
    def of(cls, table: np.ndarray) -> Self:
        """From the rows of look_up: float32 [n, 4]."""
        return cls(table[:, 0].astype(np.int16), table[:, 1].copy(), table[:, 2].astype(np.int16), table[:, 3].copy())


@njit(cache=True, nogil=True)
def look_up(fixed, s, row):
    """row := order, count, distinct symbols and entropy at the current position: float32 [4]."""
    prepare(fixed, s)
    families, rows, pool, static_rows, online = fixed.tables.families, fixed.tables.rows, s.overlay.pool, s.static_rows, s.online
    counts = np.zeros(SYMBOLS)
    row[0], row[1], row[2], row[3] = -1.0, 0.0, 0.0, 0.0
    best = -1
    for f in range(fixed.chains.first_word):
        seen = static_rows[f, END] > static_rows[f, START] or online[f, LENGTH] > 0
        if families[f, KIND] == CHARS and seen and (best < 0 or families[f, PARAM] > families[best, PARAM]):
            best = f
    if best < 0:
        return
    for r in range(static_rows[best, START], static_rows[best, END]):
        counts[row_symbol(rows[r])] += row_count(rows[r])
    for e in range(online[best, LIST], online[best, LIST] + online[best, LENGTH]):
        counts[entry_symbol(pool[e])] += entry_count(pool[e], FAST) / UNIT
    total, distinct, entropy = counts.sum(), 0, 0.0
    for c in counts:
        if c > 0.0:
            distinct += 1
            entropy -= c / total * np.log2(c / total)
    row[0], row[1], row[2], row[3] = families[best, PARAM], total, distinct, entropy
