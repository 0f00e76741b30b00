"""In a submission: everything that happens before train(), train() itself, and the model that the contest's runner drives.

    Entry(...)      unmetered: choose the backend, compile every kernel on a small text
    train(text)     metered: choose the characters, count them; no meter, no checksum, no progress, because seconds are joules
    the model       a subclass of the runner's own CharModel; predict() is what that class is annotated with

    def predict(self) -> dict[str, float]      (contest, main)     the probabilities of the alphabet
    def predict(self) -> str                   (contest, dev)      the most likely character

The counts are those of counting.build_model on the same characters, and the predictions those of `charstat eval`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np

import charstat
from charstat.alphabet import Alphabet
from charstat.contest.presets import Preset, choose_text
from charstat.counting import Backend, choose_backend, free_memory_bytes, hold_out
from charstat.mixers.warm_start import learn_warm_start
from charstat.model import Model, ModelWriter
from charstat.ngram.contexts import select_contexts
from charstat.ngram.words import model_symbol_info
from charstat.storage import MemoryColumns
from charstat.warm_up import warm_text

MAIN, DEV = "main", "dev"
BYTES_PER_CHAR = 60  # of memory at the peak of a build in memory, default contexts, order 14 (24 of the tables, measured; 8 of a key)
TIME_SHARE, MEMORY_SHARE = 0.7, 0.8  # what a preset without a limit of its own takes of what there is
WARM_STEPS = 64
HELD_OUT_FROM = 10  # a text is cut only if it is so many times what would be held out
SHARES = ("observe", "predict", "count")  # of the compilation, each for a process of its own
WORKER = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from charstat.contest.entry import warm_share; warm_share(*sys.argv[2:])"


def contract_of(base: type) -> str:
    """Which contract the runner's CharModel states: DEV if its predict() returns str, MAIN otherwise."""
    annotation = inspect.signature(base.predict).return_annotation
    return DEV if annotation is str or (isinstance(annotation, str) and annotation.strip("'\" ") == "str") else MAIN


def model_class(base: type) -> type:
    """The runner's CharModel over a stream of charstat's."""

    class CharstatModel(base):
        """A stream on the counted tables."""

        def __init__(self, stream) -> None:
            super().__init__()
            self.stream = stream

        def reset(self) -> None:
            self.stream.reset()

        def observe(self, char: str) -> None:
            self.stream.observe(char)

        if contract_of(base) == DEV:

            def predict(self) -> str:
                return self.stream.predict_char()

        else:

            def predict(self) -> dict[str, float]:
                return self.stream.predict()

    return CharstatModel


def count(text: str, preset: Preset, engine: Backend) -> Model:
    """The model of a text: what build_model does, without its meter and its report. A short text is counted as a whole."""
    end, held_out = hold_out(text, preset.held_out_chars if len(text) > HELD_OUT_FROM * preset.held_out_chars else 0)
    contexts = select_contexts(preset.contexts, preset.order)
    alphabet = Alphabet.from_text(text, _threads(), end)
    symbols = alphabet.encode(text, _threads(), end)
    writer = ModelWriter(MemoryColumns())
    for part in engine.count(symbols, 0, contexts, model_symbol_info(alphabet), lambda name: nullcontext()):
        writer.add(part)
    build = {"backend": engine.name, "device": engine.device}
    about = {"order": preset.order, "preset": preset.contexts, "text": {"chars": end}, "build": build}
    if held_out:
        learned = learn_warm_start(writer.preview(alphabet, contexts), held_out)
        writer.add_start(learned.values)
        about["start"] = {"chars": len(held_out), "layout": learned.layout}
    return writer.finish(alphabet, contexts, about)


class Entry:
    """One submission. settings: Preset.to_dict(); base: the runner's CharModel; say: told what runs where, line by line."""

    def __init__(self, settings: dict, backend: str, base: type, say: Callable[[str], None]):
        started = time.perf_counter()
        self.preset = Preset(**settings)
        self.contract = contract_of(base)
        self._class, self._say = model_class(base), say
        self._engine, why = choose_backend(backend, _threads())
        if not _compiled():
            _compile_in_parallel(self.preset, say)
        self._warm_up()
        self._rate = self._measure_rate() if self.preset.chars is None else 0.0
        what = f"the {self.preset.name} preset, {self.contract} contract, counting on {self._engine.device} ({self._engine.name}: {why})"
        say(f"{what}; warm after {time.perf_counter() - started:.1f} s")

    def train(self, text: str):
        """Count the text, or what the preset takes of it; the runner's CharModel."""
        started = time.perf_counter()
        taken = choose_text(text, self._chars(), self.preset.sample) or "\n"
        try:
            model = count(taken, self.preset, self._engine)
        except Exception as e:  # whatever a device can fail with, the CPU can still count
            if self._engine.name == "cpu":
                raise
            self._say(f"counting on {self._engine.device} failed ({type(e).__name__}: {e}): going on with the CPU")
            self._engine = choose_backend("cpu", _threads())[0]
            taken = choose_text(taken, self._chars(), "first")
            model = count(taken, self.preset, self._engine)
        stream = model.stream()
        learned = f" and learned a start from {model.start_chars:,}" if model.start_chars else ""
        where = f"{len(taken) - model.start_chars:,} of {len(text):,} characters{learned} on {self._engine.device} ({self._engine.name})"
        self._say(f"counted {where} in {time.perf_counter() - started:.3f} s")
        return self._class(stream)

    def _warm_up(self) -> None:
        """Run everything that will run, once, on a small text; a GPU that fails is left for the CPU here already."""
        preset = Preset(
            "warm", None, "first", self.preset.contexts, self.preset.order, held_out_chars=min(WARM_STEPS, self.preset.held_out_chars)
        )
        if self._engine.name != "cpu":
            try:
                self._engine.warm_up(self.preset.chars)
                count(warm_text(), preset, self._engine)
            except Exception as e:  # noqa: BLE001  whatever a device can fail with
                self._say(f"the GPU failed in the warm-up ({type(e).__name__}: {e}): going on with the CPU")
                self._engine = choose_backend("cpu", _threads())[0]
        cpu = self._engine if self._engine.name == "cpu" else choose_backend("cpu", _threads())[0]
        text = warm_text()
        model = self._class(count(text, preset, cpu).stream())
        for _ in range(2):  # the second time from a used state
            model.reset()
            for char in text[-WARM_STEPS:] + "\n":
                model.predict()
                model.observe(char)

    def _chars(self) -> int | None:
        """How many characters train() takes: the preset's, or as many as the memory and, on the CPU, the time allow; None: all."""
        if self.preset.chars is not None:
            return self.preset.chars
        free = free_memory_bytes()  # only now: the text itself is in memory
        limits = [] if free is None else [int(MEMORY_SHARE * free / BYTES_PER_CHAR)]
        if self._engine.name == "cpu":
            limits.append(int(TIME_SHARE * self.preset.count_s * self._rate))
        return max(1, min(limits)) if limits else None

    def _measure_rate(self) -> float:
        """Characters that the CPU counts in a second."""
        text = warm_text(200_000)
        started = time.perf_counter()
        count(text, self.preset, choose_backend("cpu", _threads())[0])
        return len(text) / (time.perf_counter() - started)


def warm_share(share: str, contexts: str, order: str) -> None:
    """Compile one of SHARES in this process; numba's cache on the disk takes it to the others."""
    if share == "count":
        count(warm_text(), Preset("warm", None, "first", contexts, int(order)), choose_backend("cpu", 1)[0])
        return
    from charstat.gpu.backend import GPUBackend

    # The array twin, and without words: no need for the counting kernels. The stream's kernels are the same for all contexts.
    stream = count(warm_text()[:500], Preset("warm", None, "first", "o1", 1), GPUBackend(np)).stream()
    stream.reset()
    if share == "observe":
        stream.observe("a")
    else:
        stream.predict()


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _mark() -> Path | None:
    """The file that says that numba's cache holds this package's kernels, compiled for this machine (those of both contracts are the same)."""
    cache = os.environ.get("NUMBA_CACHE_DIR")
    if not cache:
        return None
    import llvmlite.binding
    import numba

    state = f"{charstat.__file__} {numba.__version__} {llvmlite.binding.get_host_cpu_name()}"
    return Path(cache) / f"warm-{hashlib.sha256(state.encode()).hexdigest()[:16]}"


def _compiled() -> bool:
    mark = _mark()
    return mark is None or mark.exists() or _threads() == 1


def _compile_in_parallel(preset: Preset, say: Callable[[str], None]) -> None:
    """Fill numba's cache with several processes; what fails there is compiled later, here."""
    say("compiling, once on this machine (not metered) ...")
    command = [sys.executable, "-P", "-c", WORKER, json.dumps(sys.path)]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    workers = [subprocess.Popen([*command, share, preset.contexts, str(preset.order)], **quiet) for share in SHARES]
    failed = [worker for worker in workers if worker.wait()]
    if not failed:
        try:
            _mark().touch()
        except OSError:
            pass
