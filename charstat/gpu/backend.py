"""The GPU backend of counting.py: symbols in, tables out, every array the same as the CPU backend's.

The phases, as the energy meter names them (the counting stream is idle at the end of each):

    transfer   symbols to the device
    words      tokens and their hashes; meanwhile a thread on the host makes the vocabulary's trie and attributes
    key        keys of one context (9-grams: of all orders up to 8)
    sort       radix sort, in place
    reduce     run-lengths, prefix reduction, the table's final arrays
    fetch      waiting for arrays to arrive on the host, as far as the next context's work does not hide it
    weights    of a context tree, for the models that have one (weights.py)

A table's copy to the host overlaps with the next contexts' work, so its joules are in their phases. Contexts that do not fit into
device memory are counted in pieces (memory.py); if that fails, too, on the CPU. `notes` says which.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from typing import Any

import numpy as np

from charstat.alphabet import Alphabet
from charstat.cpu.backend import CPUBackend, join_runs
from charstat.cpu.classes import learn_classes
from charstat.cpu.orders import short_windows
from charstat.energy import NvmlReader
from charstat.errors import raised_by_device
from charstat.gpu.arrays import Array, Arrays, CupyArrays, NumpyArrays
from charstat.gpu.kernels import has_kernel
from charstat.gpu.keys import WINDOW, Text, char_keys, window_keys
from charstat.gpu.memory import Plan, plan_sort
from charstat.gpu.runs import Runs, by_identity, changes, contexts_of, differences, insert, lay_out, row_values, run_lengths, shorten
from charstat.gpu.sorting import Fill, sorted_pieces
from charstat.gpu.tokens import TokenIds, class_columns, describe, tokenize, word_keys, word_tokens
from charstat.gpu.weights import weigh_on_device
from charstat.ngram.classes import WordClasses, no_classes
from charstat.ngram.contexts import EXACT_ORDER, Context, select_contexts
from charstat.ngram.hashing import CHARS, SYMBOL_BITS, WORD_ID_BITS
from charstat.ngram.table import CountTable, assemble
from charstat.ngram.words import SymbolInfo, Vocabulary
from charstat.tree import TreeArrays

IN_FLIGHT = 2  # tables on their way to the host while the next one is counted
WARM_UP_CHARS = 1 << 14
LARGE_BYTES = 1 << 31  # of an array: above this, CuPy compiles another variant of its kernels


class GPUBackend:
    """Counts with CuPy on the current device, or, with xp=numpy, the same array steps on the host (for tests).

    limit_bytes: use no more device memory. kernels=False: array operations instead of the CUDA kernels. threads: of the CPU backend,
    for contexts that do not fit. MemoryError only if the host runs out of memory.
    """

    name = "gpu"

    def __init__(self, xp: Any = None, limit_bytes: int | None = None, kernels: bool = True, threads: int = 1):
        if xp is None:
            import cupy as xp
        self.arrays: Arrays = NumpyArrays(limit_bytes) if xp is np else CupyArrays(xp, limit_bytes, kernels)
        self.threads = threads
        self.notes: list[str] = []

    @property
    def device(self) -> str:
        return self.arrays.device

    @property
    def pci_bus_id(self) -> str | None:
        """The device's PCI bus id, by which NVML finds the same device; None for NumPy."""
        return self.arrays.pci_bus_id

    def energy_reader(self) -> NvmlReader:
        """The energy counter of this backend's device."""
        return NvmlReader(pci_bus_id=self.pci_bus_id)

    def synchronize(self) -> None:
        """Wait for the counting stream."""
        self.arrays.synchronize()

    def probe(self) -> None:
        """Run one kernel and check its result. Raises whatever a broken device, driver or compiler raises."""
        keys = self.arrays.to_device(np.array([3, 3, 5, 7, 7], np.uint64))
        if self.arrays.to_host(changes(self.arrays, keys, 0)).tolist() != [0, 2, 3]:
            raise RuntimeError("a kernel wrote wrong results")

    def warm_up(self, chars: int | None = None, weights: bool = False) -> None:
        """Create the CUDA context and compile every kernel. This takes seconds, but only once: CuPy caches kernels in ~/.cupy.

        chars: the size of the text to come. If its arrays pass 2 GB, the kernels' variants for large arrays are compiled, too, except
        those of the weights. weights: also compile the kernels for the weights of a context tree, as many again.
        """
        self._count_noise(WARM_UP_CHARS, select_contexts("wide", 24))
        if weights:
            self._weigh_noise(WARM_UP_CHARS)
        large = LARGE_BYTES // 8 + WARM_UP_CHARS
        if chars is not None and chars > large and isinstance(self.arrays, CupyArrays):
            plan = plan_sort(large, self.arrays.free_bytes(), self.arrays.chunk)
            if plan is not None and plan.whole:
                self._count_noise(large, select_contexts("o8,o14"))
        self.arrays.release()

    def _count_noise(self, n: int, contexts: tuple[Context, ...]) -> None:
        noise = np.random.default_rng(n).integers(0, 127, min(n, LARGE_BYTES >> 8), np.uint8)
        for _ in self.count(np.resize(noise, n), 0, contexts, _noise_info(), lambda name: nullcontext()):
            pass

    def _weigh_noise(self, n: int) -> None:
        text = "".join(np.random.default_rng(n).choice(list("abcdefgh"), n))
        alphabet = Alphabet.from_text(text)
        symbols, chain = alphabet.encode(text), select_contexts("o0,o2,o9,o11")  # links between exact orders, hashed ones, and both
        counted = self.count(symbols, 0, chain, _noise_info(), lambda name: nullcontext())
        tables = sorted(counted, key=lambda table: -table.context.param)
        for _ in self.weigh(tables, symbols, 0, alphabet.tree.arrays, 0.5, lambda name: nullcontext()):
            pass

    def count(
        self,
        symbols: np.ndarray,
        n_history: int,
        contexts: tuple[Context, ...],
        info: SymbolInfo,
        phase: Callable,
        classes: WordClasses | None = None,
    ) -> Iterator[CountTable | Vocabulary | WordClasses]:
        """CPUBackend.count() by array steps. Word classes are learned on the host, from the ids of the tokens."""
        job = _Job(self, symbols, n_history, contexts, info, phase, classes)
        waiting: deque[Future] = deque()
        try:
            for future in job.launch():
                waiting.append(future)
                while len(waiting) > IN_FLIGHT:
                    yield job.wait(waiting.popleft())
            while waiting:
                yield job.wait(waiting.popleft())
        finally:
            job.close()

    def weigh(
        self,
        tables: Iterable[CountTable],
        symbols: np.ndarray,
        n_history: int,
        tree: TreeArrays,
        alpha: float,
        phase: Callable,
    ) -> Iterator[tuple[str, np.ndarray]]:
        """CPUBackend.weigh() by array steps. tables: may be iterated twice, because the CPU starts over if they do not fit."""
        copier, done, fits = self.arrays.copier(), 0, True
        try:
            with phase("weights"):
                try:
                    for found in weigh_on_device(self.arrays, tables, symbols, n_history, tree, alpha, copier):
                        yield found
                        done += 1
                except MemoryError as e:
                    if not raised_by_device(e):
                        raise
                    fits = False  # subtle: as in _Job._attempt, the device's memory is freed only below
                if not fits:
                    self.arrays.release()
        finally:
            copier.close()
        if not fits:
            self.notes.append("the weights were computed on the CPU: not enough device memory")
            cpu = CPUBackend(self.threads)
            yield from islice(cpu.weigh(tables, symbols, n_history, tree, alpha, phase), done, None)


class _Job:
    """One count() call."""

    def __init__(
        self,
        backend: GPUBackend,
        symbols: np.ndarray,
        n_history: int,
        contexts: tuple[Context, ...],
        info: SymbolInfo,
        phase: Callable,
        classes: WordClasses | None,
    ):
        self.classes = classes
        self.backend, self.arrays = backend, backend.arrays
        self.symbols, self.n_history, self.contexts, self.info, self.phase = symbols, n_history, contexts, info, phase
        self.copier = self.arrays.copier()
        self.host = ThreadPoolExecutor(1)
        self.text: Text | None = None

    def close(self) -> None:
        self.host.shutdown()
        self.copier.close()
        self.text = None

    def wait(self, future: Future) -> CountTable | Vocabulary | WordClasses:
        if future.done():
            return future.result()
        with self.phase("fetch"):
            return future.result()

    def launch(self) -> Iterator[Future]:
        """Futures of all parts, in the order in which they become ready."""
        known = [c for c in self.contexts if has_kernel(c)]
        exact = [c for c in known if c.kind == CHARS and c.param <= EXACT_ORDER]
        hashed = [c for c in known if not c.is_words and c not in exact]
        words = [c for c in known if c.is_words]
        with self.phase("transfer"):
            self.text = self._attempt(1, lambda plan: Text(self.copier.upload(self.symbols), self.arrays.to_device(self.info.classes)))
        if self.text is None:
            yield from self._on_cpu(self.contexts)
            return
        tokens = described = None
        if words:
            tokens = self._tokenize()
            if tokens is not None:
                fetched = self.copier.fetch([*tokens.packed, tokens.lengths], lambda hosts: hosts)
                described = self.host.submit(lambda: describe(fetched.result()[:-1], fetched.result()[-1], self.info))
                tokens = tokens._replace(packed=[], lengths=None)
        yield from self._exact_tables(exact)
        for context in hashed:
            first = max(self.n_history, context.reach)

            def fill(lo: int, out: Array, context: Context = context, first: int = first) -> None:
                char_keys(self.arrays, self.text, context, first + lo, out)

            table = self._sorted_table(context, fill, max(0, self.symbols.size - first), SYMBOL_BITS)
            yield from self._on_cpu([context]) if table is None else [table]
        if described is None:
            yield from self._on_cpu(words)
        else:
            yield from self._word_tables(words, tokens, described)
        parts = self._on_cpu([c for c in self.contexts if c not in known], "no kernel for the device")
        yield from (part for part in parts if not (words and isinstance(part.result(), Vocabulary)))  # it comes once

    def _word_tables(self, contexts: list[Context], tokens: TokenIds, described: Future) -> Iterator[Future]:
        with self.phase("fetch"):
            vocabulary, attributes = described.result()
        classed = any(c.needs_classes for c in contexts)
        ids = self.arrays.to_host(tokens.ids) if classed else np.empty(0, np.uint32)
        if self.classes is None and classed:
            with self.phase("classes"):
                self.classes = learn_classes(ids, attributes.hash, attributes.spoken, self.backend.threads)
            yield _done(self.classes)
        with self.phase("words"):
            columns = class_columns(ids, attributes, self.classes or no_classes(), self.info.heading)
            ready = self._attempt(1, lambda plan: word_tokens(self.arrays, tokens, attributes, columns))
        if ready is None:
            yield from self._on_cpu(contexts)
            return
        yield _done(vocabulary)
        for i, context in enumerate(contexts):
            table = self._sorted_table(context, word_keys(self.arrays, ready, context.param), ready.n, WORD_ID_BITS)
            if table is None:  # the CPU's tokens serve all the remaining contexts; its vocabulary is the one above
                yield from (part for part in self._on_cpu(contexts[i:]) if isinstance(part.result(), CountTable))
                return
            yield table

    # Work that may not fit

    def _attempt(self, n: int, step: Callable[[Plan], Any]) -> Any:
        """step(plan) with ever smaller plans for n keys, until one does not run out of memory; None if all do."""
        plan = plan_sort(n, self.arrays.free_bytes(), self.arrays.chunk)
        if plan is None or not plan.whole:  # first free what is only waiting to be copied to the host
            self._make_room()
            plan = plan_sort(n, self.arrays.free_bytes(), self.arrays.chunk)
        while plan is not None:
            try:
                return step(plan)
            except MemoryError as e:
                if not raised_by_device(e):
                    raise
                # subtle: the memory of the failed step is freed only here, once the exception and its frames are gone
            self._make_room()
            plan = plan.smaller()
        return None

    def _make_room(self) -> None:
        self.copier.drain()
        self.arrays.release()

    def _on_cpu(self, contexts: list[Context] | tuple[Context, ...], why: str = "not enough device memory") -> Iterator[Future]:
        """These contexts by the CPU backend."""
        if contexts:
            self.backend.notes.append(f"counted on the CPU, {why}: {', '.join(c.name for c in contexts)}")
            cpu = CPUBackend(self.backend.threads)
            # subtle: the CPU backend yields inside its phases, and phases do not nest
            yield from map(_done, list(cpu.count(self.symbols, self.n_history, tuple(contexts), self.info, self.phase, self.classes)))

    def _tokenize(self) -> TokenIds | None:
        for parts in (1, 4, 16):
            try:
                with self.phase("words"):
                    return tokenize(self.arrays, self.text, self.n_history, self.info, parts)
            except MemoryError as e:
                if not raised_by_device(e):
                    raise
            self._make_room()
        return None

    # Tables

    def _sorted_table(self, context: Context, fill: Fill, n: int, shift: int) -> Future | None:
        """The table of a context whose n keys (identity << shift | value) are sorted for it alone; None if they do not fit."""
        return self._attempt(n, lambda plan: self._count_sorted(context, fill, plan, shift))

    def _count_sorted(self, context: Context, fill: Fill, plan: Plan, shift: int) -> Future:
        pieces = []
        for keys in sorted_pieces(self.arrays, fill, plan, 64, self.phase):
            held = [keys]
            del keys
            with self.phase("reduce"):
                runs = run_lengths(self.arrays, held, shift, context.is_words)
                if plan.whole:
                    return self._fetch_table(context, runs)
                pieces.append(self.copier.fetch(list(runs), tuple))
                del runs
            with self.phase("fetch"):
                pieces[-1] = pieces[-1].result()
        with self.phase("fetch"):
            identities, starts, rows, sums = join_runs(pieces)
            return _done(assemble(context, identities, starts, rows, sums if context.is_words else None))

    def _fetch_table(self, context: Context, runs: Runs) -> Future:
        bits, start_bits, arrays = lay_out(self.arrays, context, runs)
        return self.copier.fetch(arrays, lambda hosts: CountTable(context, bits, start_bits, *hosts))  # it must not keep the arrays alive

    def _exact_tables(self, contexts: list[Context]) -> Iterator[Future]:
        """Orders up to EXACT_ORDER from one sort of 9-grams, the highest first."""
        if not contexts:
            return
        n = max(0, self.symbols.size - (WINDOW - 1) - self.n_history)
        ngrams = self._attempt(n, self._distinct_ngrams)
        wanted = {c.param: c for c in contexts}
        for order in range(EXACT_ORDER, min(wanted) - 1, -1):
            table = None
            with self.phase("reduce"):
                if ngrams is not None and order < EXACT_ORDER:
                    ngrams = self._attempt(1, lambda plan, longer=ngrams: shorten(self.arrays, *longer))
                if ngrams is not None and order in wanted:
                    table = self._attempt(1, lambda plan, context=wanted[order], found=ngrams: self._exact_table(context, *found, n))
            if table is not None:
                yield table
            elif ngrams is not None and order in wanted:
                yield from self._on_cpu([wanted[order]])
            elif ngrams is None:
                yield from self._on_cpu([wanted[k] for k in sorted(wanted, reverse=True) if k <= order])
                return

    def _distinct_ngrams(self, plan: Plan) -> tuple[Array, Array]:
        """The distinct full 9-grams that start at or after n_history, sorted, and where their runs start (int64)."""
        xp = self.arrays.xp

        def fill(lo: int, out: Array) -> None:
            window_keys(self.arrays, self.text, self.n_history + lo, out)

        parts, done = [], 0
        for keys in sorted_pieces(self.arrays, fill, plan, SYMBOL_BITS * WINDOW, self.phase):
            with self.phase("reduce"):
                positions = changes(self.arrays, keys, 0)
                parts.append((keys[positions], positions + np.int64(done)))
                done += keys.size
                del keys, positions
        with self.phase("reduce"):
            return parts[0] if len(parts) == 1 else (xp.concatenate([p[0] for p in parts]), xp.concatenate([p[1] for p in parts]))

    def _exact_table(self, context: Context, keys: Array, positions: Array, n: int) -> Future:
        xp = self.arrays.xp
        short = short_windows(self.symbols, self.n_history, context.param)
        keys, counts = insert(self.arrays, keys, differences(xp, positions, n), short)
        rows = row_values(xp, counts, keys)
        identities, first_rows = contexts_of(self.arrays, keys)
        del keys, counts
        return self._fetch_table(context, by_identity(self.arrays, identities, first_rows, rows))


def _noise_info() -> SymbolInfo:
    """Symbol info for the noise of a warm-up, with symbols of every class."""
    every = np.arange(128, dtype=np.uint8)
    return SymbolInfo((every % 5 == 0).astype(np.uint8), every, every % 4 + 1, every)


def _done(value: Any) -> Future:
    future: Future = Future()
    future.set_result(value)
    return future
