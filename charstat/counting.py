"""Building a model: text -> symbols -> count tables, through a backend, measured phase by phase.

A backend is an object with `name`, `device`, `synchronize()` and `count(symbols, n_history, contexts, info, phase)`, which yields
the vocabulary and a CountTable for every context, in any order (cpu/backend.py, gpu/backend.py). All backends yield the same arrays,
bit for bit. `weigh(...)` computes the weights of a context tree from the tables of the character orders (ctw/weights.py), for the
models that have one; those of two backends are the same but for the rounding of logarithms.

Counting is all the training there is, but for the mixture's start, where text is held out for it (mixers/start.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from charstat.alphabet import Alphabet
from charstat.comparison import WEIGHTED_MODELS, check_models, needed_contexts, parse_models
from charstat.corpus import text_fingerprint
from charstat.ctw.model import TUNED as CTW_TUNED
from charstat.energy import EnergyMeter, PhaseEnergy
from charstat.errors import BackendUnavailable, CorpusError, ResourceError, UserError
from charstat.model import MAX_CHARS, Model, ModelWriter
from charstat.ngram.contexts import DEFAULT_ORDER, Context, select_contexts
from charstat.ngram.hashing import CHARS
from charstat.ngram.table import CountTable
from charstat.ngram.words import SymbolInfo, Vocabulary, model_symbol_info
from charstat.storage import DirectoryColumns, MemoryColumns
from charstat.tree import TreeArrays

BACKENDS = ("auto", "cpu", "gpu")
DEFAULT_MEMORY_SHARE = 0.6  # of the memory that is free when the build starts


class Backend(Protocol):
    name: str

    @property
    def device(self) -> str: ...

    def synchronize(self) -> None: ...

    def count(
        self, symbols: np.ndarray, n_history: int, contexts: tuple[Context, ...], info: SymbolInfo, phase: Callable
    ) -> Iterator[CountTable | Vocabulary]: ...

    def weigh(
        self,
        tables: Iterable[CountTable],
        symbols: np.ndarray,
        n_history: int,
        tree: TreeArrays,
        alpha: float,
        phase: Callable,
    ) -> Iterator[tuple[str, np.ndarray]]: ...


@dataclass(frozen=True)
class Progress:
    """What a progress callback is told: `done` of `total` steps, the phase that is running, and which share of it is done, if known."""

    phase: str
    done: int
    total: int
    share: float = 0.0


def free_memory_bytes() -> int | None:
    """Memory that new work can have without swapping (Linux: MemAvailable); None where that is not known."""
    try:
        with open("/proc/meminfo") as f:
            for line in f:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def choose_backend(
    backend: str = "auto", threads: int | None = None, memory_bytes: int | None = None, chars: int | None = None
) -> tuple[Backend, str]:
    """The backend of that name and why it was chosen; "auto" takes the GPU where one works and has the memory for `chars`.

    BackendUnavailable if it cannot run here. CuPy is imported here at the earliest, and not for "cpu".
    """
    if backend not in BACKENDS:
        raise BackendUnavailable(f"no backend is named {backend!r}: there are {', '.join(BACKENDS)}")
    threads = threads or os.cpu_count() or 1
    why = "asked for"
    if backend != "cpu":
        from charstat.gpu.device import find_gpu

        try:
            return find_gpu(chars, memory_bytes, threads)
        except BackendUnavailable as e:
            if backend == "gpu":
                raise
            why = f"no GPU: {e}"
    from charstat.cpu.backend import CPUBackend

    if memory_bytes is None:
        free = free_memory_bytes()
        memory_bytes = None if free is None else int(DEFAULT_MEMORY_SHARE * free)
    # Beside the key buffer there are the symbols, and the run-lengths of a table: at most as large as the buffer, twice.
    budget = None if memory_bytes is None else max(1 << 20, memory_bytes // 3)
    return CPUBackend(threads, budget), why


@dataclass(frozen=True)
class WrittenTables:
    """The tables of some contexts, read back one by one in every pass: those of a long text are larger than what counting left free."""

    writer: ModelWriter
    contexts: Sequence[Context]

    def __iter__(self) -> Iterator[CountTable]:
        return map(self.writer.read_table, self.contexts)


def _weigh(
    engine: Backend, writer: ModelWriter, chain: list[Context], symbols: np.ndarray, n_history: int, alphabet: Alphabet, phase: Callable
) -> Iterator[tuple[str, np.ndarray]]:
    """The weights of a context tree over a chain of character orders, the highest first, with CTW_TUNED's alpha."""
    tables = WrittenTables(writer, chain)
    return engine.weigh(tables, symbols, n_history, alphabet.tree.arrays, CTW_TUNED["alpha"], phase)


def hold_out(text: str, chars: int) -> tuple[int, str]:
    """(how many characters are counted, the last `chars` of the text). UserError if nothing would be left to count."""
    if not 0 <= chars < len(text):
        raise UserError(f"{chars:,} characters cannot be held out of a text of {len(text):,}: nothing would be left to count")
    return len(text) - chars, text[len(text) - chars :]


def energy_meter(engine: Backend) -> EnergyMeter:
    """A fresh meter for one block of work of that backend, on its device's counter."""
    reader = getattr(engine, "energy_reader", None)  # the GPU backend knows which device's counter to read
    return EnergyMeter(reader() if reader else None, synchronize=engine.synchronize)


def build_model(
    text: str,
    *,
    order: int = DEFAULT_ORDER,
    contexts: str | None = None,
    models: str | Sequence[str] = ("mix",),
    held_out_chars: int = 0,
    history: str = "",
    alphabet: Alphabet | None = None,
    backend: str = "auto",
    threads: int | None = None,
    memory_bytes: int | None = None,
    out: str | os.PathLike | None = None,
    data: dict | None = None,
    meter: EnergyMeter | None = None,
    read: PhaseEnergy | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Model:
    """Count a text and return the model; with `out`, written there as a model directory and memory-mapped.

    order, contexts: see ngram.contexts.select_contexts. models: names of comparison.MODELS that this one is built for, also as one
    string with commas, the first the one that eval takes; contexts are by default those that they need, and "ctw" and "advised" also
    have the weights of a context tree computed for all orders, with CTW_TUNED's alpha. held_out_chars: so many characters at the
    end of the text are not counted; the mixture learns its start from them (mixers/start.py). history: text before `text`, context
    only (for shards). alphabet: taken from the text that is counted where not given. memory_bytes: the budget for counting buffers.
    data: a description for the manifest. meter: a fresh EnergyMeter; build_model enters it around the counting. read: what reading the
    text took, for the list of phases in the manifest; it is in no figure of the counting. CorpusError if the text is empty; UserError
    if all of it would be held out; ContextError for names that do not exist, and for contexts without order 0 where a model needs it.
    """
    models = parse_models(models if isinstance(models, str) else ",".join(models))
    contexts = needed_contexts(models) if contexts is None else contexts
    chosen = select_contexts(contexts, order)
    check_models(models, chosen)
    chain = [c for c in reversed(chosen) if c.kind == CHARS] if set(models) & set(WEIGHTED_MODELS) else []
    engine, why = choose_backend(backend, threads, memory_bytes, len(history) + len(text))
    if not text:
        raise CorpusError("the training text is empty: there is nothing to count")
    end, held_out = hold_out(text, held_out_chars)  # where the counting ends: the text is not copied
    meter = meter or energy_meter(engine)
    if len(history) + end >= MAX_CHARS:
        raise ResourceError(f"a text of more than {MAX_CHARS - 1:,} characters: the tables' row numbers have 32 bits")
    started = time.perf_counter()
    columns = MemoryColumns() if out is None else DirectoryColumns(out)
    try:
        writer = ModelWriter(columns)
        steps = len(chosen) + max(0, len(chain) - 1) + bool(held_out) + 2
        done = 0

        def tell(phase: str, share: float = 0.0) -> None:
            if progress:
                progress(Progress(phase, done, steps, share))

        @contextmanager
        def phase(name: str) -> Iterator[None]:
            tell(name)
            with meter.phase(name):
                yield

        with meter:
            with phase("encode"):
                alphabet = alphabet or Alphabet.from_text(text, threads, end)
                symbols = alphabet.encode(text, threads, end)
                if history:
                    symbols = np.concatenate([alphabet.encode(history, threads), symbols])
            done += 1
            info = model_symbol_info(alphabet)
            for part in engine.count(symbols, len(history), chosen, info, phase):
                done += isinstance(part, CountTable)
                tell(part.context.name if isinstance(part, CountTable) else "words")
                writer.add(part)
                del part  # the last table would be held while the weights are computed
            for name, betas in _weigh(engine, writer, chain, symbols, len(history), alphabet, phase) if chain else ():
                writer.add_weights(name, betas)
                done += 1
                tell(f"weights {name}")
            if held_out:
                from charstat.mixers.start import learn_start  # with the mixture's kernels, which counting does without

                del symbols
                with phase("learn"):
                    learned = learn_start(writer.preview(alphabet, chosen), held_out, lambda n: tell("learn", n / len(held_out)))
                writer.add_start(learned)
                done += 1
        tell("finish")
        energy = meter.report()
        build = {
            "backend": engine.name,
            "device": engine.device,
            "reason": why,
            "notes": list(getattr(engine, "notes", [])),
            "seconds": time.perf_counter() - started,
            "phases": [*([read] if read else []), *energy.phases],
            "energy": energy.to_dict(),
        }
        about = {
            "order": max((c.param for c in chosen if c.kind == CHARS), default=0),
            "preset": contexts,
            "models": models,
            **({"ctw": {"alpha": CTW_TUNED["alpha"]}} if chain else {}),
            **({"start": {"chars": len(held_out), "text": text_fingerprint(held_out)}} if held_out else {}),
            "text": text_fingerprint(text, end),
            "data": data,
            "build": build,
        }
        about["text"]["history_chars"] = len(history)
        model = writer.finish(alphabet, chosen, about)
        done = steps
        tell("finish")
        return model
    finally:
        if isinstance(columns, DirectoryColumns):
            columns.discard()
