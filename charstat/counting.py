"""Building a model: choose a backend -> encode -> count -> weigh -> learn a warm start -> write; each step is one function here.

    plan = CountingPlan.of(order=8)                    what to count, settled before any text is read
    counted = count_text(text, plan, engine)           alphabet, tables, tree weights
    counted.learn_warm_start()                         from the text that the plan holds out, if any
    model = counted.model(build={...})                 the Model, in memory or in its directory

build_model does that with a meter, checksums, progress and a report; a Watch can stop the work at any step by raising an exception. The
counting itself is pipeline.count_tables, which the contest's entry calls, too: there seconds are joules.

A backend is an object with `name`, `device`, `synchronize()` and `count(symbols, n_history, contexts, info, phase)`, which yields the
vocabulary and a CountTable for every context, in any order (cpu/backend.py, gpu/backend.py). All backends yield the same arrays,
bit for bit. `weigh(...)` computes the weights of a context tree from the tables of the character orders (ctw/weights.py), for the
models that use them; the weights of two backends agree but for the rounding of logarithms.

Counting is all the training there is, except for the mixture's warm start where text is held out for it (mixers/warm_start.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from charstat.alphabet import Alphabet
from charstat.arguments import check_call, check_path, check_text, check_whole
from charstat.corpus import text_fingerprint
from charstat.ctw.model import TUNED as CTW_TUNED
from charstat.energy import EnergyMeter, PhaseEnergy
from charstat.errors import ArgumentError, BackendUnavailable, CorpusError, ResourceError, UserError
from charstat.manifest import MAX_CHARS, check_data
from charstat.model import Model, ModelWriter
from charstat.ngram.classes import WordClasses
from charstat.ngram.contexts import DEFAULT_ORDER, Context, context_list, select_contexts
from charstat.ngram.hashing import CHARS
from charstat.ngram.table import CountTable
from charstat.pipeline import Backend, Progress, Watch, count_tables
from charstat.registry import DEFAULT_MODEL, check_models, needed_contexts, parse_models, wants_tree_weights
from charstat.storage import DirectoryColumns, MemoryColumns

if TYPE_CHECKING:
    from charstat.pruning.levels import Whole
    from charstat.pruning.spans import Scratch

BACKENDS = ("auto", "cpu", "gpu")
MAX_THREADS = 64  # on machines with fewer cores: to start thousands of them takes longer than counting does
REPORT_BYTES = 16_384  # of a manifest: room for what a build says about itself once it is done
DEFAULT_MEMORY_SHARE = 0.6  # of the memory that is free when the build starts


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
    """The backend of that name and why it was chosen; "auto" takes the GPU if one works and has the memory for `chars`.

    BackendUnavailable if it cannot run here. Nothing imports CuPy before this does, and "cpu" never does.
    """
    if not isinstance(backend, str) or backend not in BACKENDS:
        raise BackendUnavailable(f"there is no backend {backend!r}; choose from {', '.join(BACKENDS)}")
    cores = os.cpu_count() or 1
    threads = min(check_whole(threads, "threads", 1), max(MAX_THREADS, cores)) if threads is not None else cores
    if memory_bytes is not None:
        check_whole(memory_bytes, "memory_bytes", 1)
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


def hold_out(text: str, chars: int) -> tuple[int, str]:
    """(how many characters are counted, the last `chars` of the text). UserError if nothing would be left to count."""
    if not 0 <= chars < len(text):
        raise UserError(f"cannot hold {chars:,} characters out of a text of {len(text):,}: nothing would be left to count")
    return len(text) - chars, text[len(text) - chars :]


def energy_meter(engine: Backend) -> EnergyMeter:
    """A fresh meter for one block of work of that backend, on its device's counter."""
    reader = getattr(engine, "energy_reader", None)  # the GPU backend knows which device's counter to read
    return EnergyMeter(reader() if reader else None, synchronize=engine.synchronize)


@dataclass(frozen=True)
class SizeLimits:
    """What a model is cut to (pruning/cut.py). max_bytes: of its directory, None for no limit; min_count: contexts that were seen fewer times
    go; packed: the form of the directory, None: packed for small budgets."""

    max_bytes: int | None = None
    min_count: int = 1
    packed: bool | None = None

    @classmethod
    def of(cls, max_bytes: int | None, min_count: int, packed: bool | None) -> SizeLimits | None:
        """The limits, checked; None if everything is kept, as it was counted. ArgumentError for values that have no meaning."""
        if max_bytes is None and packed is None and (min_count == 1 and type(min_count) is int):
            return None
        from charstat.pruning.cut import check_limits

        return cls(*check_limits(max_bytes, min_count, packed))

    @property
    def cuts(self) -> bool:
        """Whether anything is left out, and not only packed."""
        return self.max_bytes is not None or self.min_count > 1


@dataclass(frozen=True)
class CountingPlan:
    """What a build does with a text, settled before any text is read.

    contexts: whose tables to count; preset: the names they were asked for by. models: names of the registry that the model is built
    for, the first the one that it opens by default. held_out_chars: how many characters at the end of the text are not counted; the
    mixture learns its warm start from them. size: what the tables are cut to afterwards; None: everything that was counted is kept. start: the
    model whose warm start the mixture begins with, before it learns from held-out text; None: cold.
    """

    contexts: tuple[Context, ...]
    preset: str
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    held_out_chars: int = 0
    size: SizeLimits | None = None
    start: Model | None = None

    @classmethod
    def of(
        cls,
        order: int = DEFAULT_ORDER,
        contexts: str | Sequence[str] | None = None,
        models: str | Sequence[str] = (DEFAULT_MODEL,),
        held_out_chars: int = 0,
        size: SizeLimits | None = None,
        start: Model | None = None,
    ) -> CountingPlan:
        """The plan for these options of build_model. ContextError for names that do not exist, for contexts without order 0 where
        a model reads it, and for models that need all counts where some are cut; UserError for a model that has no start to begin with."""
        if start is not None:
            from charstat.mixers.carried_start import check_start  # with the mixture, which counting does without

            check_start(start)
        names = parse_models(models)
        preset = needed_contexts(names) if contexts is None else context_list(contexts)
        chosen = select_contexts(preset, order)
        check_models(names, chosen, size is not None and size.cuts)
        return cls(chosen, preset, tuple(names), held_out_chars, size, start)

    def columns(self, out: str | os.PathLike | None) -> MemoryColumns | DirectoryColumns:
        """Where the counts go: memory, or the directory that they are for, in its form unless they are to be cut first."""
        if out is None:
            return MemoryColumns()
        if self.size is None or self.size.cuts or not self.size.packed:
            return DirectoryColumns(out)
        from charstat.pruning.cut import new_columns

        return new_columns(out, True)

    @property
    def order(self) -> int:
        """The highest character order; 0 without any."""
        return max((c.param for c in self.contexts if c.kind == CHARS), default=0)

    @property
    def tree_orders(self) -> list[Context]:
        """The character orders that form a context tree with weights, the highest first; empty where no model uses the weights."""
        if not wants_tree_weights(self.models):
            return []
        return [c for c in reversed(self.contexts) if c.kind == CHARS]

    @property
    def learns(self) -> bool:
        """Whether the model gets a warm start."""
        return bool(self.held_out_chars) or self.start is not None

    @property
    def energy_notes(self) -> list[str]:
        """What the energy of a build with this plan leaves out."""
        if self.start is None:
            return []
        return ["the start of another model was learned in that model's build: the energy of that is not part of this one"]

    @property
    def steps(self) -> int:
        """How many steps a build reports: encoding, each table, each level of the tree, learning, finishing."""
        return 2 + len(self.contexts) + max(0, len(self.tree_orders) - 1) + self.learns + bool(self.size and self.size.cuts)


@dataclass
class CountedText:
    """What count_text() counted, not yet a Model: counted_chars characters of the text; held_out is the rest of it.

    learned: what the manifest says about the warm start (from how many characters, with which layout of the mixer, after whose start); empty without.
    pruned: what it says about the cut; empty without.
    """

    plan: CountingPlan
    alphabet: Alphabet
    writer: ModelWriter
    counted_chars: int
    held_out: str
    learned: dict = field(default_factory=dict)
    pruned: dict = field(default_factory=dict)

    @property
    def start_facts(self) -> dict:
        """What a manifest says about the warm start: `learned`, and on which text."""
        return self.learned | ({"text": text_fingerprint(self.held_out)} if self.held_out else {})

    def cut(
        self,
        out: str | os.PathLike | None,
        watch: Watch | None = None,
        scratch: Scratch | None = None,
        before: Mapping[str, Whole] | None = None,
    ) -> None:
        """Cut the tables to the plan's size, into new columns for `out`; nothing if everything is kept. UserError if nothing fits.

        scratch, before: as `scratch` and `whole` in pruning.levels.weigh. With `before`, what the cut costs is not measured: the whole is gone.
        """
        size = self.plan.size
        if size is None or not size.cuts:
            return
        from charstat.pruning.cut import Cut, cost_in_bits, new_columns, start_bytes

        watch, whole = watch or Watch(), self.writer.preview(self.alphabet, self.plan.contexts)
        left = new_columns(out, size.packed)
        try:
            with watch.phase("prune"):
                later = REPORT_BYTES + (start_bytes(whole, size.packed) if self.plan.learns else 0)
                limits = size.max_bytes, size.min_count, size.packed
                cut = Cut(whole, *limits, later, lambda name, share: watch.tell("prune", share), scratch, before)
                writer = ModelWriter(left)
                cut.write(writer)
                self.pruned = cut.about(cut.level)
                if self.held_out and not before:
                    small = writer.preview(self.alphabet, self.plan.contexts)
                    self.pruned["held_out"] = cost_in_bits(whole, small, self.held_out)
            self.writer, left = writer, self.writer.columns
        finally:
            if isinstance(left, DirectoryColumns):
                left.discard()
        watch.step("prune")

    def learn_warm_start(self, watch: Watch | None = None) -> None:
        """Make the mixture's warm start: of the plan's, if it has one, and of the held-out text, if there is any. An exception that `watch`
        raises leaves it unlearned."""
        if not self.plan.learns:
            return
        from charstat.packing.form import coarse_start

        watch = watch or Watch()

        def tell(done: int) -> None:
            watch.tell("learn", done / len(self.held_out))

        with watch.phase("learn"):
            built = self.writer.preview(self.alphabet, self.plan.contexts)
            if self.plan.start is None:
                from charstat.mixers.warm_start import learn_warm_start  # with the mixture's kernels, which counting does without

                found, about = learn_warm_start(built, self.held_out, tell), {}
            else:
                from charstat.mixers.carried_start import carry_over, learn_on

                found, origin = carry_over(self.plan.start, built)
                found, about = learn_on(found, built, self.held_out, tell), {"from": origin}
        self.writer.add_start(coarse_start(found.values) if self.pruned.get("coarse") else found.values)
        self.learned = {"chars": found.chars, "layout": found.layout, **about}
        watch.step("learn")

    def model(self, **about) -> Model:
        """The model, written to its directory if the columns have one. about: more for the manifest (build, data), or to replace the
        facts given here."""
        facts = {
            "order": self.plan.order,
            "preset": self.plan.preset,
            "models": list(self.plan.models),
            "text": {"chars": self.counted_chars},
        }
        if self.plan.tree_orders:
            facts["ctw"] = {"alpha": CTW_TUNED["alpha"]}
        if self.learned:
            facts["start"] = self.learned
        if self.pruned:
            facts["pruned"] = self.pruned
        return self.writer.finish(self.alphabet, self.plan.contexts, facts | about)


def count_text(
    text: str,
    plan: CountingPlan,
    engine: Backend,
    *,
    columns: MemoryColumns | DirectoryColumns | None = None,
    alphabet: Alphabet | None = None,
    classes: WordClasses | None = None,
    history: str = "",
    threads: int | None = None,
    watch: Watch | None = None,
) -> CountedText:
    """Encode a text, count its contexts, and weigh the context tree if the plan's models use its weights.

    columns: where the arrays go, memory by default; alphabet, classes, history: as in build_model; threads: for encoding (the backend has its
    own); watch: told of every phase. CorpusError if the text is empty; UserError if all of it would be held out, or for classes without an
    alphabet; ResourceError if it is too long for the tables.
    """
    watch = watch or Watch()
    if not text:
        raise CorpusError("the training text is empty: there is nothing to count")
    if classes is not None and alphabet is None:
        raise UserError("word classes are valid only with the alphabet that they were learned with: pass that, too (alphabet=)")
    end, held_out = hold_out(text, plan.held_out_chars)
    if len(history) + end > MAX_CHARS:
        raise ResourceError(
            f"the text has {len(history) + end:,} characters; the tables hold at most {MAX_CHARS:,}: count less with --limit"
        )
    writer = ModelWriter(MemoryColumns() if columns is None else columns)
    alphabet, symbols = count_tables(
        text, end, plan.contexts, engine, writer, alphabet=alphabet, classes=classes, history=history, threads=threads, watch=watch
    )
    _weigh(engine, symbols, len(history), plan.tree_orders, alphabet, writer, watch)
    return CountedText(plan, alphabet, writer, end, held_out)


@dataclass(frozen=True)
class WrittenTables:
    """The tables of some contexts, read back one by one in every pass: those of a long text are larger than what counting left free."""

    writer: ModelWriter
    contexts: Sequence[Context]

    def __iter__(self) -> Iterator[CountTable]:
        return map(self.writer.read_table, self.contexts)


def _weigh(
    engine: Backend,
    symbols: np.ndarray,
    n_history: int,
    orders: Sequence[Context],
    alphabet: Alphabet,
    writer: ModelWriter,
    watch: Watch,
) -> None:
    """The weights of a context tree over these character orders, the highest first, with CTW_TUNED's alpha."""
    if not orders:
        return
    tables, tree = WrittenTables(writer, orders), alphabet.tree.arrays
    for name, betas in engine.weigh(tables, symbols, n_history, tree, CTW_TUNED["alpha"], watch.phase):
        writer.add_weights(name, betas)
        watch.step(f"weights {name}")


def _of_one_kind(text: str | bytes, history: str | bytes) -> tuple[str | bytes, str | bytes]:
    """The text and what stands before it, both str or both bytes. ArgumentError for anything else."""
    if not isinstance(text, bytes | bytearray):
        return check_text(text), check_text(history, "history")
    if isinstance(history, str) and not history:  # the default
        history = b""
    if not isinstance(history, bytes | bytearray):
        raise ArgumentError(f"the text is bytes, and history {type(history).__name__}: encode it in the same way")
    return bytes(text), bytes(history)


def build_model(
    text: str | bytes,
    *,
    order: int = DEFAULT_ORDER,
    contexts: str | Sequence[str] | None = None,
    models: str | Sequence[str] = (DEFAULT_MODEL,),
    held_out_chars: int = 0,
    history: str | bytes = "",
    alphabet: Alphabet | None = None,
    classes: WordClasses | None = None,
    backend: str = "auto",
    threads: int | None = None,
    memory_bytes: int | None = None,
    max_bytes: int | None = None,
    min_count: int = 1,
    packed: bool | None = None,
    start: Model | None = None,
    out: str | os.PathLike | None = None,
    data: dict | None = None,
    meter: EnergyMeter | None = None,
    read: PhaseEnergy | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Model:
    """Count a text and return the model; with `out`, written there as a model directory and memory-mapped.

    text: a str, or bytes, any bytes, for a model of bytes: where it says "character", a byte is meant (alphabet.py). order, contexts: see
    ngram.contexts.select_contexts; contexts are by default what the models need. models: names of the registry that this model is built
    for, as a list or with commas; the first is the one that eval takes. For "ctw" and "advised" the weights of a context tree are computed,
    too, for all orders. held_out_chars: how many characters at the end of the text are not counted; the mixture learns its warm start from
    them (mixers/warm_start.py). history: text before `text`, context only (for shards). alphabet: by default that of the text that is
    counted. classes: of words (Model.classes), for shards; learned from the text by default, where a context looks at them, and good for
    one alphabet. backend, threads, memory_bytes: what counts, on how many threads, in how much buffer memory. max_bytes, min_count, packed:
    cut the model to a size after counting, as pruning.cut.prune does; the form of the directory. start: a model whose warm start this one begins
    with, as far as it fits (mixers/carried_start.py), before it learns from held-out text, if there is any; the manifest says so. data: a
    description for the manifest.
    meter: a fresh EnergyMeter, which build_model enters around the counting. read: what reading the text took; it joins the phases in the
    manifest, and none of the figures of the counting. progress: called with a Progress.

    CorpusError if the text is empty; UserError if all of it would be held out, or if `start` has none; ContextError for names that do not exist, and for
    contexts without order 0 where a model reads it; BackendUnavailable; ResourceError if the text is too long, or the disk is full.
    """
    text, history = _of_one_kind(text, history)
    check_call(progress, "progress")
    if out is not None:
        check_path(out, "out")
    check_data(data)
    for name, value, kind in (("alphabet", alphabet, Alphabet), ("classes", classes, WordClasses)):
        if value is not None and not isinstance(value, kind):
            raise ArgumentError(f"{name} must be of type {kind.__name__}, not {type(value).__name__}")
    size = SizeLimits.of(max_bytes, min_count, packed)
    plan = CountingPlan.of(order, contexts, models, check_whole(held_out_chars, "held_out_chars", 0), size, start)
    engine, why = choose_backend(backend, threads, memory_bytes, len(history) + len(text))
    meter = meter or energy_meter(engine)
    watch = Watch(plan.steps, meter, progress)
    started = time.perf_counter()
    columns = plan.columns(out)
    try:
        with meter:
            counted = count_text(
                text, plan, engine, columns=columns, alphabet=alphabet, classes=classes, history=history, threads=threads, watch=watch
            )  # fmt: skip
            counted.cut(out, watch)
            columns = counted.writer.columns
            counted.learn_warm_start(watch)
        watch.tell("finish")
        energy = meter.report()
        energy.notes.extend(plan.energy_notes)
        about = {
            "text": text_fingerprint(text, counted.counted_chars) | {"history_chars": len(history)},
            "data": data,
            "build": {
                "backend": engine.name,
                "device": engine.device,
                "reason": why,
                "notes": list(getattr(engine, "notes", [])),
                "seconds": time.perf_counter() - started,
                "phases": [*([read] if read else []), *energy.phases],
                "energy": energy.to_dict(),
            },
        }
        if counted.learned:
            about["start"] = counted.start_facts
        model = counted.model(**about)
        watch.step("finish")
        return model
    finally:
        if isinstance(columns, DirectoryColumns):
            columns.discard()
