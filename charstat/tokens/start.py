"""The warm start of token streams: what a mixer learned from ids that were held out of the counting.

As mixers/warm_start.py: weights and evidence, good for streams of the same layout. Online counts and the nodes' own frequencies start anew.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charstat.errors import FormatError
from charstat.mixers.evidence import STATES
from charstat.tokens.layout import TokenLayout
from charstat.tokens.match import LENGTH_BUCKETS
from charstat.tokens.state import TokenMixer


class TokenStart(NamedTuple):
    """What a mixer learned."""

    values: np.ndarray  # float32 [n]: weights, logits, match
    layout: str  # layout.TokenLayout.digest
    tokens: int  # of how many
    experts: int = 0  # how many advised

    def check(self, layout: TokenLayout) -> None:
        """FormatError unless a stream of this layout can begin with it."""
        if self.layout != layout.digest() or self.values.size != start_size(TokenLayout(layout.contexts, layout.vocab_size, self.experts)):
            raise FormatError("this warm start was learned with other contexts, or by another version: learn it again on this model")
        if self.experts > layout.experts:
            raise FormatError(
                f"this warm start was learned with {self.experts} experts, and the stream has {layout.experts}: pass experts="
            )


def start_size(layout: TokenLayout) -> int:
    """How many numbers a start of this layout has."""
    return layout.rows.end * layout.width + 2 * layout.families * STATES + 2 * LENGTH_BUCKETS


def pack(mixer: TokenMixer) -> np.ndarray:
    """What a mixer has learned that holds for any text: float32 [n]."""
    return np.concatenate([part.ravel() for part in (mixer.weights, mixer.logits, mixer.match)])


def unpack(start: TokenStart, mixer: TokenMixer, layout: TokenLayout) -> None:
    """Write what pack() took into a mixer; experts beyond those that advised keep their initial weights."""
    plain = TokenLayout(layout.contexts, layout.vocab_size, start.experts)
    weights, logits, match = np.split(start.values, np.cumsum([plain.rows.end * plain.width, mixer.logits.size]))
    mixer.weights[:, : plain.inputs] = weights.reshape(-1, plain.width)[:, : plain.inputs]
    mixer.logits[...] = logits.reshape(mixer.logits.shape)
    mixer.match[...] = match
