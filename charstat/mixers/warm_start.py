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

from charstat.errors import FormatError
from charstat.mixers.layout import MixerLayout

if TYPE_CHECKING:
    from charstat.mixers.logistic import Mixer
    from charstat.model import Model
    from charstat.symbol_model import AnyAdvice

CHUNK_CHARS = 4096  # between two reports of progress


def pack(mixer: Mixer) -> np.ndarray:
    """What a mixer has learned, field by field: float32 [n]. Not the last stage, whose maps depend on how the mixer errs: they start anew."""
    return np.concatenate([part.ravel() for part in (mixer.weights, mixer.logits, mixer.match)])


class WarmStart(NamedTuple):
    """What a mixer learned."""

    values: np.ndarray  # float32 [n]: pack
    layout: str  # layout.MixerLayout.digest
    chars: int  # how many it was learned from
    experts: int = 0  # how many advised

    def copy_to(self, mixer: Mixer, layout: MixerLayout) -> None:
        """Write it into a mixer of the same layout, which may have more experts: those keep their initial weights.

        FormatError if the sizes do not fit. Whether the layout was the same one is checked_warm_start's business.
        """
        plain = MixerLayout(layout.contexts, self.experts)
        sizes = [plain.rows * plain.width, mixer.logits.size, mixer.match.size]
        if self.values.size != sum(sizes):
            raise FormatError("the model's warm start does not fit this version's mixer: build the model again")
        weights, logits, match = np.split(self.values, np.cumsum(sizes)[:-1])
        mixer.weights[:, : plain.inputs] = weights.reshape(-1, plain.width)[:, : plain.inputs]
        mixer.logits[...] = logits.reshape(mixer.logits.shape)
        mixer.match[...] = match


def checked_warm_start(chosen: bool | WarmStart, model: Model, layout: MixerLayout, experts: int, match: bool) -> WarmStart:
    """The chosen start, or the model's own, for a mixture of that layout. FormatError if it was learned with another one."""
    digest = layout.digest()
    if isinstance(chosen, WarmStart):
        if chosen.layout != digest or not match:
            raise FormatError("this warm start was learned with other contexts, or by another version: learn it again on this model")
        if chosen.experts > experts:
            raise FormatError(f"this warm start was learned with {chosen.experts} experts, and the stream has {experts}: pass experts=")
        return chosen
    if model.manifest["start"].get("layout") != digest:
        raise FormatError(
            "the model's warm start was learned with another mixer layout: build the model again, or open it without: "
            "stream(warm_start=False)"
        )
    return WarmStart(model.warm_start, digest, model.warm_start_chars)


def learn_warm_start(model: Model, text: str, progress: Callable[[int], None] | None = None, advice: AnyAdvice | None = None) -> WarmStart:
    """Observe a text that was not counted; what the mixer of all contexts learned from it. progress: told how many characters are done.

    advice: what experts say before each character, as for SymbolModel.score; stream(experts=n, warm_start=learned) then begins with the
    weights that they earned. ValueError if the advice does not fit the text.
    """
    said, experts = None, 0
    if advice is not None:
        from charstat.advice import advice_for  # here, because a submission has no experts and leaves that file out

        said, experts = advice_for(advice, len(text))
    stream = model.stream(warm_start=False, experts=experts)
    stream.reset()
    for at in range(0, len(text), CHUNK_CHARS):
        end = min(at + CHUNK_CHARS, len(text))
        stream.score(text[at:end], said and said(at, end))
        if progress:
            progress(end)
    return WarmStart(pack(stream.mixer), stream.layout.digest(), len(text), stream.experts)
