"""The CPU backend of counting.py: symbols in, tables out, one context at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
from numba import njit

from charstat.cpu.orders import exact_tables
from charstat.cpu.sorting import run_lengths, sorted_keys
from charstat.cpu.words import TokenFeatures, Tokens, token_features, tokenize, word_keys
from charstat.ctw.weights import weigh_text
from charstat.ngram.classes import WordClasses, no_classes
from charstat.ngram.contexts import EXACT_ORDER, MAX_ORDER, Context
from charstat.ngram.hashing import CHARS, SYMBOL_BITS, SYMBOL_SHIFT, WORD_ID_BITS, char_identity, push_symbol
from charstat.ngram.table import MAX_COUNT, CountTable, assemble
from charstat.ngram.words import HASH, LENGTH, SymbolInfo, Vocabulary
from charstat.tree import TreeArrays


@njit(cache=True, nogil=True)
def _fill_char_keys(symbols, classes, kind, param, reach, lo, hi, out):
    """identity << 7 | symbol at the positions lo..hi that have `reach` symbols before them."""
    history = np.zeros(5, np.uint64)
    for i in range(max(0, lo - MAX_ORDER), lo):
        push_symbol(history, symbols[i], classes[symbols[i]])
    m = 0
    for i in range(lo, hi):
        symbol = symbols[i]
        if i >= reach:
            out[m] = (char_identity(kind, param, history) << SYMBOL_SHIFT) | np.uint64(symbol)
            m += 1
        push_symbol(history, symbol, classes[symbol])
    return m


OVERLAP_CHARS = 64_000_000  # a longer text spends its time in steps that keep all threads busy

Part = CountTable | Vocabulary | WordClasses


class CPUBackend:
    """Counts with numba kernels on `threads` threads; key buffers stay within budget_bytes, if given.

    overlap: count the characters and the words of short texts at once, on half of the threads each. Phases then hold the work of both.
    """

    name = "cpu"

    def __init__(self, threads: int, budget_bytes: int | None = None, overlap: bool = False):
        self.threads = threads
        self.budget_bytes = budget_bytes
        self.overlap = overlap and threads > 1

    @property
    def device(self) -> str:
        return f"{self.threads} CPU thread{'s' if self.threads > 1 else ''}"

    def synchronize(self) -> None:
        """Nothing to do: the CPU backend has finished when a call returns."""

    def count(
        self,
        symbols: np.ndarray,
        n_history: int,
        contexts: tuple[Context, ...],
        info: SymbolInfo,
        phase: Callable,
        classes: WordClasses | None = None,
    ) -> Iterator[Part]:
        """Yield the vocabulary (where there are word contexts) and the table of every context, in any order.

        symbols: uint8 [n]; the first `n_history` are history, context only. phase(name) is a context manager that measures. classes: of
        words; without them, they are learned from these symbols if a context looks at them, and yielded before that context.
        """
        chars = [c for c in contexts if not c.is_words]
        words = [c for c in contexts if c.is_words]
        if not self.overlap or symbols.size > OVERLAP_CHARS:
            yield from self._count_chars(symbols, n_history, chars, info, phase)
            yield from self._count_words(symbols, n_history, words, info, phase, classes)
            return
        half = CPUBackend(self.threads // 2, self.budget_bytes)
        rest = CPUBackend(self.threads - half.threads, self.budget_bytes)
        with ThreadPoolExecutor(1) as pool:
            aside = pool.submit(lambda: [*half._count_words(symbols, n_history, words, info, nullcontext, classes)])
            yield from rest._count_chars(symbols, n_history, chars, info, phase)
            yield from aside.result()

    def _count_chars(
        self, symbols: np.ndarray, n_history: int, contexts: list[Context], info: SymbolInfo, phase: Callable
    ) -> Iterator[Part]:
        exact = [c for c in contexts if c.kind == CHARS and c.param <= EXACT_ORDER]
        if exact:
            with phase("orders"):
                yield from exact_tables(symbols, n_history, exact, self.threads, self.budget_bytes)
        for context in contexts:
            if context not in exact:
                with phase("hashed"):
                    yield self._char_table(symbols, n_history, context, info)

    def _count_words(
        self,
        symbols: np.ndarray,
        n_history: int,
        contexts: list[Context],
        info: SymbolInfo,
        phase: Callable,
        classes: WordClasses | None,
    ) -> Iterator[Part]:
        if not contexts:
            return
        with phase("words"):
            tokens = tokenize(symbols, n_history, info)
            yield tokens.vocabulary
        if classes is None and any(c.needs_classes for c in contexts):
            from charstat.cpu.classes import learn_classes

            with phase("classes"):
                hashes, spoken = tokens.attributes[:, HASH].copy(), tokens.attributes[:, LENGTH] > 0
                classes = learn_classes(tokens.ids, hashes, spoken, self.threads)
                yield classes
        with phase("words"):
            features = token_features(tokens, classes or no_classes(), info.heading)
            for context in contexts:
                yield self._word_table(tokens, features, context)

    def weigh(
        self,
        tables: Iterable[CountTable],
        symbols: np.ndarray,
        n_history: int,
        tree: TreeArrays,
        alpha: float,
        phase: Callable,
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (context name, betas) of every character order but the highest, from the longest down: see ctw/weights.py.

        tables: those of the character orders, the highest first, down to order 0, counted from these symbols.
        """
        with phase("weights"):
            yield from weigh_text(tables, symbols, n_history, tree, alpha, self.threads)

    def _char_table(self, symbols: np.ndarray, n_history: int, context: Context, info: SymbolInfo) -> CountTable:
        def fill(lo: int, hi: int, out: np.ndarray) -> int:
            return _fill_char_keys(symbols, info.classes, context.kind, context.param, context.reach, n_history + lo, n_history + hi, out)

        runs = [
            run_lengths(keys, SYMBOL_BITS, False, MAX_COUNT, self.threads)
            for keys in sorted_keys(fill, symbols.size - n_history, 64, self.threads, self.budget_bytes)
        ]
        return assemble(context, *join_runs(runs)[:3])

    def _word_table(self, tokens: Tokens, features: TokenFeatures, context: Context) -> CountTable:
        fill, n = word_keys(tokens, features, context.param)
        runs = [
            run_lengths(keys, WORD_ID_BITS, True, 0, self.threads) for keys in sorted_keys(fill, n, 64, self.threads, self.budget_bytes)
        ]
        return assemble(context, *join_runs(runs))


def join_runs(runs: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """The run-lengths of consecutive groups of keys as one. No context lies in two groups."""
    if len(runs) == 1:
        return runs[0]
    row_at = np.cumsum([0] + [r[2].size for r in runs])
    key_at = np.cumsum([0] + [int(r[3][-1]) if r[3].size else 0 for r in runs])
    starts = [r[1][:-1] + np.uint32(at) for r, at in zip(runs, row_at[:-1], strict=True)]
    sums = [r[3][:-1] + np.uint32(at) for r, at in zip(runs, key_at[:-1], strict=True)]
    return (
        np.concatenate([r[0] for r in runs]),
        np.concatenate([*starts, np.array([row_at[-1]], np.uint32)]),
        np.concatenate([r[2] for r in runs]),
        np.concatenate([*sums, np.array([key_at[-1]], np.uint32)]),
    )
