"""Before what is measured: compile every kernel that a build runs, or load it from numba's cache, on a small text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from charstat.counting import Backend

WARM_WORDS = 40_000  # distinct words: from 32,768 on, counting makes a larger table of them
HELD_OUT_CHARS = 64


def warm_text(more_words: int = 0) -> str:
    """A text in which everything happens that happens in a real one: all character classes, an escape, ever more distinct words."""
    letters = "etaoinshrdlucmfw"
    words = ["".join(letters[n >> shift & 15] for shift in (0, 4, 8, 12)) for n in range(WARM_WORDS)]
    start = f"\n = Title = \n\n\n In 1905 {'the ' * 9} {''.join(map(chr, range(33, 170)))} {'long' * 12}\n\n"
    ranks = np.random.default_rng(1).zipf(1.2, more_words) % WARM_WORDS
    return start + " ".join([*words, *(words[int(r)] for r in ranks)]) + start


def warm_up(engine: Backend, order: int, contexts: str, models: Sequence[str], learns: bool) -> None:
    """Run a build of these contexts and models once, on the CPU, and whatever the backend wants to run itself. learns: with held-out text."""
    from charstat.counting import build_model
    from charstat.registry import wants_tree_weights

    own = getattr(engine, "warm_up", None)  # the GPU's kernels
    if own is not None:
        own(weights=wants_tree_weights(models))
    held_out = HELD_OUT_CHARS if learns else 0
    build_model(warm_text(), order=order, contexts=contexts, models=models, held_out_chars=held_out, backend="cpu")
