"""Whether probabilities mean what they say: of all that a model said with about probability p, how much came?

Every symbol's probability at every position counts, in bins of log odds. A model that knows how sure it may be lies on the diagonal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from charstat.symbol_model import SymbolModel
from charstat.tree import SYMBOLS

if TYPE_CHECKING:
    from charstat.charmodel_api import CharModel

EDGES = np.arange(-11.5, 12.0, 1.0)  # log odds; 1e-5 to 1 - 1e-5, and what is beyond them
CHUNK_CHARS = 4096


def calibrate(stream: CharModel, text: str, progress: Callable[[int], None] | None = None) -> dict[str, Any]:
    """Resets the stream and lets it read the text. {bins: [{said, came, n}], gap}: the mean probability said and the share that came of
    every bin that has any; gap: the mean over all positions of |came - said|, summed over the bins. progress: characters done."""
    n, said, came = (np.zeros(EDGES.size + 1) for _ in range(3))
    stream.reset()
    used = np.append(np.arange(SYMBOLS - 1) < stream.alphabet.size, True)
    for at in range(0, len(text), CHUNK_CHARS):
        piece = text[at : at + CHUNK_CHARS]
        rows, symbols = _distributions(stream, piece), stream.alphabet.encode(piece)
        rows = np.clip(rows, 1e-12, 1.0 - 1e-12)
        places = np.searchsorted(EDGES, np.log(rows / (1.0 - rows)))
        right = places[np.arange(len(piece)), symbols]
        n += np.bincount(places[:, used].ravel(), minlength=n.size)
        said += np.bincount(places[:, used].ravel(), rows[:, used].ravel(), minlength=n.size)
        came += np.bincount(right, minlength=n.size)
        if progress:
            progress(at + len(piece))
    bins = [{"said": s / k, "came": c / k, "n": int(k)} for k, s, c in zip(n, said, came, strict=True) if k]
    return {"bins": bins, "gap": float(np.abs(said - came).sum() / max(1, len(text)))}


def _distributions(stream: CharModel, text: str) -> np.ndarray:
    """P of all symbols before each character, which the stream observes: float64 [len(text), 128]."""
    if isinstance(stream, SymbolModel):
        return stream.distributions(text)
    rows = np.empty((len(text), SYMBOLS))
    for i, char in enumerate(text):
        stream.probabilities(rows[i])
        stream.observe(char)
    return rows
