"""The warm start of a mixture: what its mixer learned from text that was held out of the counting, kept with the model.

Without one, every stream begins with equal weights and spends its first tens of thousands of characters on learning what holds for
any text. A warm start keeps the weights and the evidence (logistic.Mixer, field by field) and how many characters they were learned
from, because the learning rate falls with time. Online counts and the match model start empty.

The text must not be one that was counted: there the longest contexts are always right, and the mixer would learn to trust them.

The values mean nothing without the layout they were learned with: layout.digest() is stored beside them and checked before they are used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from charstat.mixers.logistic import pack
from charstat.mixers.mixture import Mixture

if TYPE_CHECKING:
    from charstat.model import Model

CHUNK_CHARS = 4096  # between two reports of progress


class WarmStart(NamedTuple):
    values: np.ndarray  # float32 [n]: logistic.pack
    layout: str  # layout.MixerLayout.digest


def learn_warm_start(model: Model, text: str, progress: Callable[[int], None] | None = None) -> WarmStart:
    """Observe a text that was not counted; what the mixer of all contexts learned from it. progress: told how many characters are done."""
    stream = Mixture(model, warm_start=False)
    stream.reset()
    for at in range(0, len(text), CHUNK_CHARS):
        part = text[at : at + CHUNK_CHARS]
        stream.score(part)
        if progress:
            progress(at + len(part))
    return WarmStart(pack(stream.mixer), stream.layout.digest())
