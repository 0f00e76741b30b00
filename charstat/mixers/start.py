"""The start of a mixture: what its mixer learned from text that was held out of the counting, kept with the model.

Without one, every stream begins with equal weights, and spends its first tens of thousands of characters on learning what holds for
any text. Kept are the weights and the evidence (logistic.Mixer), in the order of its fields, and how long it had learned, for its
rate falls with time; online counts and the match model begin empty as ever.

The text must not be one that was counted: there the longest contexts are always right, and the mixer would learn to trust them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from charstat.mixers.logistic import pack
from charstat.mixers.mixture import BLOCK_SYMBOLS, Mixture

if TYPE_CHECKING:
    from charstat.model import Model


def learn_start(model: Model, text: str, progress: Callable[[int], None] | None = None) -> np.ndarray:
    """Observe a text that was not counted; what the mixer of all contexts learned from it: float32 [n]. progress: characters done."""
    stream = Mixture(model, start=False)
    stream.reset()
    for at in range(0, len(text), BLOCK_SYMBOLS):
        part = text[at : at + BLOCK_SYMBOLS]
        stream.score(part)
        if progress:
            progress(at + len(part))
    return pack(stream.mixer)
