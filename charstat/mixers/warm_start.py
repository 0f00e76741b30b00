"""The warm start of a mixture: what its mixer learned from text that was held out of the counting, kept with the model.

Without one, every stream begins with equal weights and spends its first tens of thousands of characters on learning what holds for
any text. A warm start keeps the weights and the evidence (logistic.Mixer, field by field) and how many characters they were learned
from, because the learning rate falls with time. Online counts and the match model start empty.

The text must not be one that was counted: there the longest contexts are always right, and the mixer would learn to trust them.

The values mean nothing without the layout they were learned with: layout.digest() is stored beside them and checked before they are used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from charstat.advice import Advice
from charstat.mixers.logistic import WarmStart, pack
from charstat.mixers.mixture import Mixture

if TYPE_CHECKING:
    from charstat.model import Model
    from charstat.symbol_model import AnyAdvice

CHUNK_CHARS = 4096  # between two reports of progress


def learn_warm_start(
    model: Model, text: str, progress: Callable[[int], None] | None = None, advice: AnyAdvice | None = None, experts: int | None = None
) -> WarmStart:
    """Observe a text that was not counted; what the mixer of all contexts learned from it. progress: told how many characters are done.

    advice: what experts say before each character, as for SymbolModel.score; stream(experts=n, warm_start=learned) then begins with the
    weights that they earned. experts: how many; by default as many as the advice has. ValueError if the advice does not fit the text.
    """
    if advice is not None and experts is None:
        experts = 1 if isinstance(advice, Advice) else np.shape(advice)[1] if isinstance(advice, np.ndarray) else len(advice)
    stream = Mixture(model, warm_start=False, experts=experts or 0)
    stream.reset()
    parts = [advice] if isinstance(advice, Advice) else advice
    if parts is not None and any(len(part) != len(text) for part in ([parts] if isinstance(parts, np.ndarray) else parts)):
        raise ValueError(f"advice must have a row for each of the {len(text):,} characters")
    for at in range(0, len(text), CHUNK_CHARS):
        end = min(at + CHUNK_CHARS, len(text))
        said = parts if parts is None else parts[at:end] if isinstance(parts, np.ndarray) else [part[at:end] for part in parts]
        stream.score(text[at:end], said)
        if progress:
            progress(end)
    return WarmStart(pack(stream.mixer), stream.layout.digest(), len(text), stream.experts)
