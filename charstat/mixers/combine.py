"""A mixture advised by other models: each expert's probabilities are one more input of the logistic mixer.

Experts see the same text and learn from it on their own; the mixer learns how far to trust each. An expert is anything with
reset(), observe(char) and probabilities() over the mixture's 128 symbols: PPM, context-tree weighting, Kneser-Ney, or a
neural net's distribution mapped to characters.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np

from charstat.advice import Advice
from charstat.charmodel_api import CharModel
from charstat.errors import StateError
from charstat.mixers.explanation import Explanation, sources_of
from charstat.mixers.mixture import Mixture
from charstat.symbol_model import SymbolModel
from charstat.tree import SYMBOLS

CHUNK_CHARS = 4096


class Expert(Protocol):
    """What can advise a mixture. probabilities() returns an Advice of one row, or float64 [128]; it may fill `out` and return that."""

    def reset(self, keep_learning: bool = False) -> None: ...

    def observe(self, char: str) -> None: ...

    def probabilities(self, out: np.ndarray | None = None) -> np.ndarray | Advice: ...


class AdvisedMixture(CharModel):
    """A mixture (made with experts=len(experts)) and the experts that advise it."""

    def __init__(self, mixture: Mixture, experts: Sequence[Expert]):
        if mixture.experts != len(experts):
            raise ValueError(f"the mixture expects {mixture.experts} experts, not {len(experts)}")
        self.mixture, self.experts = mixture, tuple(experts)
        self.model, self.alphabet = mixture.model, mixture.alphabet
        self._advised = False

    def reset(self, keep_learning: bool = False) -> None:
        """As Mixture.reset, for the mixture and every expert (whose reset() needs keep_learning only if it is used)."""
        how = {"keep_learning": True} if keep_learning else {}
        for model in (self.mixture, *self.experts):
            model.reset(**how)
        self._advised = False

    def fork(self) -> Self:
        """As Mixture.fork, for the mixture and every expert (an expert without fork() is copied by copy.deepcopy)."""
        experts = [e.fork() if hasattr(e, "fork") else copy.deepcopy(e) for e in self.experts]
        other = type(self)(self.mixture.fork(), experts)
        other._advised = self._advised
        return other

    def freeze(self) -> Self:
        """As Mixture.freeze, for the mixture and every expert; StateError if one of them has no freeze()."""
        for expert in self.experts:
            if not hasattr(expert, "freeze"):
                raise StateError(f"the expert {type(expert).__name__} has no freeze(): it cannot predict without learning")
        other = type(self)(self.mixture.freeze(), [e.freeze() for e in self.experts])
        other._advised = self._advised
        return other

    def commit(self, text: str) -> None:
        """As Mixture.commit, for the mixture and every expert."""
        self.score(text)

    def __copy__(self) -> Self:
        return self.fork()

    def __deepcopy__(self, memo: dict) -> Self:
        return self.fork()

    def _ask(self) -> None:
        if not self._advised:
            self.mixture.advise(np.stack([self._row(e) for e in self.experts]))
            self._advised = True

    def _row(self, expert: Expert) -> np.ndarray:
        said = expert.probabilities()
        row = said.aligned(self.alphabet) if isinstance(said, Advice) else np.asarray(said, np.float64)
        if row.shape != (SYMBOLS,):
            raise ValueError(f"{type(expert).__name__}.probabilities() must return an array of the shape ({SYMBOLS},), not {row.shape}")
        return row

    @property
    def unlisted_mass(self) -> float:
        """What the last predict() did not list."""
        return self.mixture.unlisted_mass

    @property
    def n_bytes(self) -> int:
        """Bytes held beside the count tables, where the experts say so."""
        return sum(getattr(model, "n_bytes", 0) for model in (self.mixture, *self.experts))

    def probabilities(self, out: np.ndarray | None = None) -> np.ndarray:
        """As Mixture.probabilities."""
        self._ask()
        return self.mixture.probabilities(out)

    def explain(self, char: str) -> Explanation:
        """As Mixture.explain; the experts' inputs bear the names of their classes."""
        self._ask()
        names = tuple(type(e).__name__ for e in self.experts)
        return self.mixture.explain(char)._replace(sources=sources_of(self.mixture.layout, names))

    def predict(self) -> dict[str, float]:
        """As Mixture.predict."""
        self._ask()
        return self.mixture.predict()

    def predict_char(self) -> str:
        """As Mixture.predict_char."""
        self._ask()
        return self.mixture.predict_char()

    def observe(self, char: str) -> None:
        """Learn from the character that came: the mixture and every expert."""
        self._ask()
        self.mixture.observe(char)
        for expert in self.experts:
            expert.observe(char)
        self._advised = False

    def score(self, text: str) -> np.ndarray:
        """Observe a text; bits of each character, each predicted before it was observed: float64 [len(text)]."""
        return self.guess_and_score(text)[1]

    def guess_and_score(self, text: str) -> tuple[list[str], np.ndarray]:
        """Observe a text; the most likely character before each, and the bits of each."""
        guesses: list[str] = []
        bits = np.empty(len(self.alphabet.text(text)))
        for at in range(0, len(text), CHUNK_CHARS):
            part = text[at : at + CHUNK_CHARS]
            advice = np.empty((len(part), len(self.experts), SYMBOLS))
            for e, expert in enumerate(self.experts):
                if isinstance(expert, SymbolModel):
                    advice[:, e] = expert.distributions(part)
                    continue
                for i in range(len(part)):  # each row is asked for before its character is observed
                    advice[i, e] = self._row(expert)
                    expert.observe(part[i : i + 1])
            guessed, bits[at : at + len(part)] = self.mixture.guess_and_score(part, advice)
            guesses += guessed
        self._advised = False
        return guesses, bits
