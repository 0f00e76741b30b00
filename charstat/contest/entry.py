"""In a submission: what happens before train(), train() itself, and the model that the contest's runner drives.

    Entry(...)      unmetered: choose the backend, compile every kernel on a small text
    train(text)     metered: take the first characters, count them; no meter, no checksum, no progress, because seconds are joules
    the model       a subclass of the runner's own CharModel; predict() is what that class is annotated with

    def predict(self) -> dict[str, float]      (contest, main)     the probabilities of the alphabet
    def predict(self) -> str                   (contest, dev)      the most likely character

The counts are those of counting.build_model on the same characters, and the predictions those of `charstat eval`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numba import int64, typeof

import charstat
from charstat.alphabet import Alphabet
from charstat.columns import CLASS_COLUMNS, TABLE_COLUMNS
from charstat.contest.presets import Preset
from charstat.cpu.backend import CPUBackend
from charstat.errors import raised_by_device
from charstat.mixers.kernels import advance, learn
from charstat.mixers.mixture import Mixture
from charstat.model import ModelWriter
from charstat.ngram.classes import WordClasses
from charstat.ngram.contexts import Context, select_contexts
from charstat.ngram.table import empty_table
from charstat.ngram.words import Vocabulary
from charstat.pipeline import Watch, count_tables
from charstat.storage import MemoryColumns
from charstat.warm_up import warm_text

if TYPE_CHECKING:
    from charstat.pipeline import Backend

MAIN, DEV = "main", "dev"
LIMIT_S = 300.0  # the contest's limit of train()
RESERVE_S = 5.0  # of it, for what comes after the last look at the clock
WARM_STEPS = 64
HELD_OUT_FROM = 10  # a text is cut if it is so many times what would be held out
WORKER = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from charstat.contest.entry import compile_counting; compile_counting(*sys.argv[2:])"


class OverTime(Exception):
    """Counting would break the time limit."""


class Deadline(Watch):
    """Stops the work with OverTime at time.perf_counter() = until; looks at the clock after every table."""

    def __init__(self, until: float):
        super().__init__()
        self._until = until

    def tell(self, name: str, share: float = 0.0) -> None:
        if time.perf_counter() > self._until:
            raise OverTime


def contract_of(base: type) -> str:
    """Which contract the runner's CharModel states: DEV if its predict() returns str, MAIN otherwise."""
    annotation = inspect.signature(base.predict).return_annotation
    return DEV if annotation is str or (isinstance(annotation, str) and annotation.strip("'\" ") == "str") else MAIN


def model_class(base: type) -> type:
    """The runner's CharModel over a stream of charstat's."""

    class CharstatModel(base):
        """A stream on the counted tables."""

        def __init__(self, stream: Mixture) -> None:
            super().__init__()
            self.stream = stream

        def reset(self) -> None:
            self.stream.reset()

        def observe(self, char: str) -> None:
            self.stream.observe(char)

        def __reduce__(self) -> tuple:
            return restored_model, (self.stream,)

        if contract_of(base) == DEV:

            def predict(self) -> str:
                return self.stream.predict_char()

        else:

            def predict(self) -> dict[str, float]:
                return self.stream.predict()

    return CharstatModel


def restored_model(stream: Mixture):
    """What a pickled model becomes where it is read: of the CharModel of the runner there."""
    from wikitext import CharModel

    for array in (*stream.model.columns.values(), *stream.model.classes, stream.model.warm_start):
        array.setflags(write=False)  # subtle: pickle forgets it, and numba would compile every kernel again for other arrays
    return model_class(CharModel)(stream)


@dataclass(frozen=True)
class CountedModel:
    """What a stream reads of a model, from tables that stay in memory.

    manifest: as in model.Model, the tables' places and the start's layout alone."""

    alphabet: Alphabet
    contexts: tuple[Context, ...]
    manifest: dict
    columns: dict[str, np.ndarray]
    vocabulary: Vocabulary
    classes: WordClasses
    warm_start: np.ndarray
    warm_start_chars: int

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """As in model.Model: what a pickled stream need not hold again."""
        return self.columns

    def stream(self, **options) -> Mixture:
        return Mixture(self, **options)


def count(text: str, preset: Preset, engine: Backend, until: float = math.inf) -> CountedModel:
    """The model of a text: what build_model does, without its meter and its report. A short text is counted as a whole.

    until: time.perf_counter() at which counting is given up with OverTime; the start, which comes after it, is then left out.
    """
    end = len(text) - (preset.held_out_chars if len(text) > HELD_OUT_FROM * preset.held_out_chars else 0)
    contexts, writer, watch = select_contexts(preset.contexts, preset.order), ModelWriter(MemoryColumns()), Deadline(until)
    alphabet, _ = count_tables(text, end, contexts, engine, writer, threads=_threads(), watch=watch)
    model = counted_model(alphabet, contexts, writer)
    if end == len(text):
        return model
    from charstat.mixers.warm_start import learn_warm_start

    try:
        learned = learn_warm_start(model, text[end:], lambda done: watch.tell("learn"))
    except OverTime:
        return model
    manifest = {**model.manifest, "start": {"layout": learned.layout}}
    return replace(model, manifest=manifest, warm_start=learned.values, warm_start_chars=len(text) - end)


def counted_model(alphabet: Alphabet, contexts: tuple[Context, ...], writer: ModelWriter) -> CountedModel:
    """The model of the tables that were added to a writer."""
    held = writer.columns.view()
    columns = {name: held[name] for name in TABLE_COLUMNS}
    vocabulary = Vocabulary(held["first_child"], held["trie_symbol"], held["first_id"], writer.words)
    classes = WordClasses.from_flat(*(held[name] for name in CLASS_COLUMNS))
    tables = {c.name: writer.tables[c.name] for c in contexts}
    return CountedModel(alphabet, contexts, {"tables": tables}, columns, vocabulary, classes, held["start"], 0)


class Entry:
    """One submission. settings: Preset.to_dict(); base: the runner's CharModel; say: told what runs where, line by line."""

    def __init__(self, settings: dict, backend: str, base: type, say: Callable[[str], None]):
        started = time.perf_counter()
        self.preset = Preset(**settings)
        self.contract = contract_of(base)
        self._class, self._say = model_class(base), say
        self._cpu = CPUBackend(_threads(), overlap=True)
        self._engine, why = self._cpu, "asked for"
        if backend != "cpu":
            from charstat.counting import choose_backend

            self._engine, why = choose_backend(backend, _threads())
        _compile_in_parallel(self.preset, self.contract, say)
        self._warm_up()
        what = f"the {self.preset.name} preset, {self.contract} contract, counting on {self._engine.device} ({self._engine.name}: {why})"
        say(f"{what}; warm after {time.perf_counter() - started:.1f} s")

    def train(self, text: str):
        """Count what the preset takes of the text; the runner's CharModel.

        Only what a device raises is caught, never what the runner does (a time limit, an interrupt). The CPU then counts in its place, if
        the seconds that are left are enough for it.
        """
        started = time.perf_counter()
        until = started + LIMIT_S - RESERVE_S
        try:
            model, taken = self._count(text, until)
        except Exception as e:
            left = until - time.perf_counter()
            if self._engine.name == "cpu" or not raised_by_device(e):
                raise
            failed = f"counting on {self._engine.device} failed ({type(e).__name__}: {e})"
            if left < self.preset.cpu_s:
                self._say(f"{failed}, and {left:.0f} s are too few for the CPU, which may take {self.preset.cpu_s:.0f} s: giving up")
                raise
            self._say(f"{failed}: going on with the CPU, {left:.0f} s are left")
            self._engine = self._cpu
            model, taken = self._count(text, until)
        if self.preset.held_out_chars and not model.warm_start_chars and len(taken) > HELD_OUT_FROM * self.preset.held_out_chars:
            self._say(f"WARNING: after {time.perf_counter() - started:.0f} s no time was left to learn a start: NOT the preset's result")
        learned = f" and learned a start from {model.warm_start_chars:,}" if model.warm_start_chars else ""
        where = (
            f"{len(taken) - model.warm_start_chars:,} of {len(text):,} characters{learned} on {self._engine.device} ({self._engine.name})"
        )
        self._say(f"counted {where} in {time.perf_counter() - started:.3f} s")
        return self._class(model.stream())

    def _count(self, text: str, until: float) -> tuple[CountedModel, str]:
        """(model, the characters taken). RuntimeError if the time limit would be broken."""
        taken = text[: self.preset.chars if self._engine.name == "cpu" else self.preset.gpu_chars] or "\n"
        try:
            return count(taken, self.preset, self._engine, until), taken
        except OverTime:
            self._say(f"STOPPED: counting {len(taken):,} characters would take more than the {LIMIT_S:.0f} s that train() may take")
            raise RuntimeError(f"counting takes more than {LIMIT_S:.0f} s on this machine") from None

    def _warm_up(self) -> None:
        """Run everything that will run, once, on a small text; a GPU that fails is left for the CPU here already."""
        preset = replace(self.preset, name="warm", held_out_chars=min(WARM_STEPS, self.preset.held_out_chars))
        if self._engine.name != "cpu":
            try:
                self._engine.warm_up(self.preset.gpu_chars)
                count(warm_text(), preset, self._engine)
            except Exception as e:
                # Beside a device's own errors: those of libraries that are missing, which CuPy reports as what they are.
                if not raised_by_device(e) and type(e) not in (ImportError, ModuleNotFoundError, OSError, RuntimeError):
                    raise
                self._say(f"the GPU failed in the warm-up ({type(e).__name__}: {e}): going on with the CPU")
                self._engine = self._cpu
        text = warm_text()
        model = self._class(count(text, preset, self._cpu).stream())
        for _ in range(2):  # the second time from a used state
            model.reset()
            for char in text[-WARM_STEPS:] + "\n":
                model.predict()
                model.observe(char)


def compile_learning(preset: Preset) -> None:
    """Compile what the model runs, and what learns a start, in this process: looking counts up first."""
    stream = empty_model().stream()
    stream.reset()
    stream.observe("a")
    if preset.held_out_chars:
        from charstat.mixers.warm_start import learn_warm_start

        learn_warm_start(empty_model(), "a")


def compile_counting(settings: str, contract: str) -> None:
    """Compile what compile_learning() comes to last, then the counting and the predictions.

    What both need is compiled by the one that comes to it first; numba's cache on the disk takes it to the other.
    """
    stream = empty_model().stream()
    stream.reset()
    for kernel in (learn, advance):
        kernel.compile((typeof(stream._fixed), typeof(stream.state), int64))
    count(warm_text(), replace(Preset(**json.loads(settings)), held_out_chars=0), CPUBackend(1))
    stream.predict() if contract == MAIN else stream.predict_char()


def empty_model() -> CountedModel:
    """A model of no text: its arrays are of the same types as any other's, and no kernel has run."""
    (context,), writer = select_contexts("o1", 1), ModelWriter(MemoryColumns())
    writer.add(empty_table(context))
    return counted_model(Alphabet.from_counts(np.bincount([ord("a")])), (context,), writer)


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _mark(contract: str) -> Path:
    """The file that says that numba's cache holds the kernels of this package, compiled for this machine."""
    import llvmlite.binding
    import numba

    state = f"{charstat.__version__} {numba.__version__} {sys.version} {llvmlite.binding.get_host_cpu_name()} {os.environ.get('NUMBA_CACHE_DIR')}"
    return Path(charstat.__file__).parent / "__pycache__" / f"compiled-{contract}-{hashlib.sha256(state.encode()).hexdigest()[:16]}"


def _compile_in_parallel(preset: Preset, contract: str, say: Callable[[str], None]) -> None:
    """Fill numba's cache, this process and another, unless that was done. What fails there is compiled later, here."""
    mark = _mark(contract)
    if mark.exists() or _threads() == 1:
        return
    say("compiling, once on this machine (not metered) ...")
    command = [sys.executable, "-P", "-c", WORKER, json.dumps(sys.path), json.dumps(asdict(preset)), contract]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    worker = subprocess.Popen(command, **quiet)
    compile_learning(preset)
    if worker.wait() == 0:
        try:
            mark.parent.mkdir(exist_ok=True)
            mark.touch()
        except OSError:
            pass
