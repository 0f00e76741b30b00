"""The counting of a text: encode it, hand it to a backend, collect the tables. What build_model and the contest's entry share.

count_tables() is told only what it needs; its callers (counting.py, contest/entry.py) decide what is measured, checked and written. A Watch follows the work, and can stop it at any step by raising an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from charstat.alphabet import Alphabet
from charstat.ngram.classes import WordClasses
from charstat.ngram.contexts import Context
from charstat.ngram.table import CountTable
from charstat.ngram.words import SymbolInfo, Vocabulary, model_symbol_info
from charstat.tree import TreeArrays

if TYPE_CHECKING:
    from charstat.energy import EnergyMeter
    from charstat.model import ModelWriter


@dataclass(frozen=True)
class Progress:
    """What a progress callback is told: the phase that is running, `done` of `total` steps, and the share of the phase done, if known."""

    phase: str
    done: int
    total: int
    share: float = 0.0


class Backend(Protocol):
    name: str

    @property
    def device(self) -> str: ...

    def synchronize(self) -> None: ...

    def count(
        self,
        symbols: np.ndarray,
        n_history: int,
        contexts: tuple[Context, ...],
        info: SymbolInfo,
        phase: Callable,
        classes: WordClasses | None = None,
    ) -> Iterator[CountTable | Vocabulary | WordClasses]: ...

    def weigh(
        self,
        tables: Iterable[CountTable],
        symbols: np.ndarray,
        n_history: int,
        tree: TreeArrays,
        alpha: float,
        phase: Callable,
    ) -> Iterator[tuple[str, np.ndarray]]: ...


class Watch:
    """Follows a build: meters each phase, counts the steps, tells the caller. A plain Watch() does nothing."""

    def __init__(self, steps: int = 0, meter: EnergyMeter | None = None, progress: Callable[[Progress], None] | None = None):
        self._steps, self._meter, self._progress = steps, meter, progress
        self._done = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Surrounds the work of one phase."""
        self.tell(name)
        with nullcontext() if self._meter is None else self._meter.phase(name):
            yield

    def step(self, name: str) -> None:
        """One step more is done."""
        self._done += 1
        self.tell(name)

    def tell(self, name: str, share: float = 0.0) -> None:
        """Tell the caller where the build is."""
        if self._progress:
            self._progress(Progress(name, self._done, self._steps, share))


def count_tables(
    text: str,
    end: int,
    contexts: tuple[Context, ...],
    engine: Backend,
    writer: ModelWriter,
    *,
    alphabet: Alphabet | None = None,
    classes: WordClasses | None = None,
    history: str = "",
    threads: int | None = None,
    watch: Watch | None = None,
) -> tuple[Alphabet, np.ndarray]:
    """Count the contexts of text[:end] into the writer: vocabulary, word classes, and a table for each context.

    alphabet, classes, history: as in counting.build_model; threads: for encoding (the backend has its own). Returns the alphabet and the
    symbols of history and text[:end], uint8. The text is not copied.
    """
    watch = watch or Watch()
    with watch.phase("encode"):
        alphabet = alphabet or Alphabet.from_text(text, threads, end)
        symbols = alphabet.encode(text, threads, end)
        if history:
            symbols = np.concatenate([alphabet.encode(history, threads), symbols])
    watch.step("encode")
    if classes is not None:
        writer.add(classes)
    for part in engine.count(symbols, len(history), contexts, model_symbol_info(alphabet), watch.phase, classes):
        if isinstance(part, CountTable):
            watch.step(part.context.name)
        else:
            watch.tell("classes" if isinstance(part, WordClasses) else "words")
        writer.add(part)
    return alphabet, symbols
