"""Compile every kernel that a build runs, or load it from numba's cache, before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from charstat.counting import SizeLimits
    from charstat.model import Model
    from charstat.pipeline import Backend

WARM_WORDS = 40_000  # distinct words: at 32,768, counting switches to a larger table
HELD_OUT_CHARS = 64
WARM_BYTES = 2_000_000  # of the model that is cut


def warm_text(more_words: int = 0) -> str:
    """A text that reaches every branch a real one does: all character classes, an escape, more and more distinct words."""
    letters = "etaoinshrdlucmfw"
    words = ["".join(letters[n >> shift & 15] for shift in (0, 4, 8, 12)) for n in range(WARM_WORDS)]
    start = f"\n = Title = \n\n\n In 1905 {'the ' * 9} {''.join(map(chr, range(33, 170)))} {'long' * 12}\n\n"
    ranks = np.random.default_rng(1).zipf(1.2, more_words) % WARM_WORDS
    return start + " ".join([*words, *(words[int(r)] for r in ranks)]) + start


def warm_up(
    engine: Backend,
    order: int,
    contexts: str,
    models: Sequence[str],
    learns: bool,
    size: SizeLimits | None = None,
    start: Model | None = None,
) -> None:
    """Build once with these contexts and models, on the CPU, and let the backend warm up what it has. learns: with held-out text; size: what
    the build is cut to; start: whose start it begins with."""
    from charstat.counting import build_model
    from charstat.registry import wants_tree_weights

    own = getattr(engine, "warm_up", None)  # the GPU's kernels
    if own is not None:
        own(weights=wants_tree_weights(models))
    held_out = HELD_OUT_CHARS if learns else 0
    limits = {"max_bytes": WARM_BYTES, "packed": size.packed} if size is not None and size.cuts else {}
    build_model(warm_text(), order=order, contexts=contexts, models=models, held_out_chars=held_out, backend="cpu", start=start, **limits)
