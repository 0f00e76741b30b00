"""SymbolModel: a CharModel over symbols. What all models here share: characters in and out, the cost of the escape, checks, blocks.

A model fills P(symbol) for all 128 symbols and learns from a symbol; this file makes dictionaries, guesses and bits of that.
Rare characters share the escape's probability (alphabet.py); the guess is the most likely character, the lower symbol of
equals, rare ones last.

A model implements five methods (_restart, _forget_context, _clock, _fill, _run_symbols) and, where it can do better than the default,
_make_room, _likeliest, _probability_of and _step. What it holds is in `state`, a NamedTuple of arrays. For freeze() it also implements
_move_on, and `learned` names the fields of the state that only learning changes. The public methods are here alone.

What grows or forgets does so at the start of a block of `block_symbols` symbols, so that no result depends on how a text is cut into
calls. A stream belongs to one thread at a time: a call that meets another one in the middle raises StateError.
"""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numba import njit

from charstat.charmodel_api import CharModel
from charstat.copies import copied, with_columns, without_columns
from charstat.errors import StateError
from charstat.tree import ESCAPE, SYMBOLS

if TYPE_CHECKING:
    from charstat.advice import AnyAdvice
    from charstat.model import Model

LIST_RARE_FROM = 0.01  # predict() lists the rare characters when the escape is at least this likely
NO_GUESSES, NO_ROWS = np.empty(0, np.uint8), np.empty((0, SYMBOLS))
F = TypeVar("F", bound=Callable[..., Any])


@njit(cache=True, nogil=True)
def best_symbol(p, best_rare):
    """The symbol of the most likely character; best_rare: the largest P(char | escape)."""
    best, best_p = np.int64(0), p[0]
    for s in range(1, ESCAPE):
        if p[s] > best_p:
            best, best_p = np.int64(s), p[s]
    return np.int64(ESCAPE) if p[ESCAPE] * best_rare > best_p else best


def checked_out(out: np.ndarray | None, shape: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:
    """`out` if a kernel can fill it, or a new array of that shape and dtype. ValueError or TypeError that says what is wrong with it."""
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy array, not {type(out).__name__}")
    problems = [
        *([f"its shape is {out.shape}, not {shape}"] if out.shape != shape else []),
        *([f"its dtype is {out.dtype}, not {np.dtype(dtype)}"] if out.dtype != dtype else []),
        *(["it is not C-contiguous"] if not out.flags.c_contiguous else []),
        *(["it is not aligned"] if not out.flags.aligned else []),
        *(["it is read-only"] if not out.flags.writeable else []),
    ]
    if problems:
        raise ValueError(f"out cannot be filled: {'; '.join(problems)}")
    return out


def one_at_a_time(method: F) -> F:
    """The method, refusing to run while another thread is inside a method of the same stream."""

    @wraps(method)
    def guarded(self, *args, **kwargs):
        if not self._busy.acquire(blocking=False):
            raise StateError(
                "this stream is in use by another thread: give each thread a stream of its own (model.stream(), or stream.fork())"
            )
        try:
            return method(self, *args, **kwargs)
        finally:
            self._busy.release()

    return guarded


class SymbolModel(CharModel):
    """Base of the models that stand on a Model's count tables alone. experts: how many experts can advise it."""

    block_symbols = 4096
    experts = 0
    learned: tuple[str, ...] = ("overlay",)

    def __init__(self, model: Model):
        self.model = model
        self.alphabet = model.alphabet
        self.unlisted_mass = 0.0
        self._chars = [self.alphabet.unit(c) for c in self.alphabet.chars]
        self._rare_chars = list(self.alphabet.rare_probabilities)
        self._best_rare = max(self.alphabet.rare_probabilities.values(), default=0.0)
        self._scratch = np.empty(SYMBOLS)
        self._started = False
        self._block = -1
        self._busy = threading.RLock()
        self._resets = 0  # how often what was learned was forgotten
        self._frozen_from: tuple[SymbolModel, int, int] | None = None  # of a view: the stream that it looks at, and when
        self.state: Any = None  # what the stream holds: a NamedTuple of arrays, made by reset()

    # What a model implements.

    @abstractmethod
    def _restart(self) -> None:
        """Go back to the initial state."""

    @abstractmethod
    def _forget_context(self) -> None:
        """Go to the start of a text, keeping all that was learned."""

    @abstractmethod
    def _clock(self) -> int:
        """How many symbols were learned from."""

    @abstractmethod
    def _fill(self, out: np.ndarray) -> None:
        """out[symbol] := P(symbol), float64 [128]."""

    @abstractmethod
    def _run_symbols(self, symbols: np.ndarray, p: np.ndarray, guesses: np.ndarray, rows: np.ndarray, advice: np.ndarray) -> None:
        """Observe symbols, uint8 [n]: p[i] := P(symbols[i]) before it was. Where there is room: guesses[i] := the best symbol, uint8;
        rows[i] := P of all symbols, float64 [128]. advice: float64 [n, experts, 128], or [0, experts, 128] for none."""

    def _move_on(self, symbol: int) -> None:
        """Go on to the next position after this symbol, and learn nothing. StateError if the model cannot."""
        raise StateError(f"{type(self).__name__} cannot predict without learning: it implements no _move_on")

    def _make_room(self) -> None:
        """At the start of a block: make room for block_symbols observations, forget what is beyond the limits."""

    def _share(self) -> None:
        """Before a fork: set aside what a copy can share with this stream."""

    def _unshare(self) -> None:
        """Before a view is made, which writes nothing, not even copies of what it reads: hold everything in one place again."""

    def _likeliest(self) -> int:
        """The symbol of the most likely character."""
        self._fill(self._scratch)
        return int(best_symbol(self._scratch, self._best_rare))

    def _probability_of(self, symbol: int) -> float:
        """P(symbol)."""
        self._fill(self._scratch)
        return float(self._scratch[symbol])

    def _step(self, symbol: int) -> None:
        """Observe one symbol."""
        self._run_symbols(np.array([symbol], np.uint8), self._scratch[:1], NO_GUESSES, NO_ROWS, np.empty((0, self.experts, SYMBOLS)))

    def _take_advice(self, advice: np.ndarray) -> None:
        """Keep the experts' probabilities, float64 [experts, 128], until the next symbol is observed."""

    @property
    def n_bytes(self) -> int:
        """Bytes this model holds beside the count tables."""
        return 0

    # What all of them share.

    @one_at_a_time
    def fork(self) -> Self:
        """A second stream at the same place that has learned the same; from here on each goes its own way. The tables are shared."""
        if self.state is not None and not self._frozen_from:
            self._share()
        return self._with_state(copied(self.state))

    @one_at_a_time
    def freeze(self) -> Self:
        """A view of this stream that predicts and moves on, but learns nothing: what was learned is shared, the place is its own.

        It lasts until the stream itself learns; then the view raises StateError. To score a text chunk by chunk, each against the state
        before it:

            for chunk in chunks:
                bits = stream.freeze().score(chunk)
                stream.commit(chunk)
        """
        self._ready()
        if type(self)._move_on is SymbolModel._move_on:
            self._move_on(0)  # says that it cannot
        if not self._frozen_from:
            self._unshare()
        parts = zip(self.state._fields, self.state, strict=True)
        other = self._with_state(type(self.state)(*(part if name in self.learned else copied(part) for name, part in parts)))
        other._frozen_from = self._frozen_from or (self, self._resets, self._clock())
        return other

    def commit(self, text: str, advice: AnyAdvice | None = None) -> None:
        """Learn from a text whose characters were already charged for (freeze), and move on. advice: as for score()."""
        if self._frozen_from:
            raise StateError("a frozen view learns nothing: call commit() of the stream that it was made from")
        self.score(text, advice)

    def _with_state(self, state: Any) -> Self:
        other = object.__new__(type(self))
        other._restore({**self._parts(), "state": state})
        return other

    def _parts(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("_busy", "_scratch")}

    def _restore(self, parts: dict) -> None:
        self.__dict__.update(parts)
        self._busy, self._scratch = threading.RLock(), np.empty(SYMBOLS)

    def __copy__(self) -> Self:
        return self.fork()

    def __deepcopy__(self, memo: dict) -> Self:
        return self.fork()

    def __getstate__(self) -> dict:
        return {name: without_columns(value, self.model) for name, value in self._parts().items() if name != "alphabet"}

    def __setstate__(self, state: dict) -> None:
        model = state["model"]
        self._restore({"alphabet": model.alphabet, **{name: with_columns(value, model) for name, value in state.items()}})

    def _ready(self) -> None:
        """Raise StateError before reset(); make room where a block starts."""
        if not self._started:
            raise StateError("reset() comes first: it puts the model at the start of a text")
        if self._frozen_from:
            self._check_view(*self._frozen_from)
            return
        block = self._clock() // self.block_symbols
        if block != self._block:
            self._block = block
            self._make_room()

    def _check_view(self, stream: SymbolModel, resets: int, clock: int) -> None:
        if (stream._resets, stream._clock()) != (resets, clock):
            raise StateError("the stream has learned since it was frozen: take a new view with freeze()")

    def _observe_symbols(self, symbols: np.ndarray, p: np.ndarray, guesses: np.ndarray, rows: np.ndarray, advice: np.ndarray) -> None:
        """_run_symbols, or of a frozen view the same without learning."""
        if not self._frozen_from:
            self._run_symbols(symbols, p, guesses, rows, advice)
            return
        for i, symbol in enumerate(symbols.tolist()):
            if len(advice):
                self._take_advice(advice[i])
            if len(rows):
                self._fill(rows[i])
            if len(guesses):
                guesses[i] = self._likeliest()
            p[i] = self._probability_of(symbol)
            self._move_on(symbol)

    def _blocks(self, n: int) -> Iterator[slice]:
        """Slices of n symbols to observe, cut where a block ends; there is room for each when it is its turn."""
        self._ready()
        at = 0
        while at < n:
            self._ready()
            end = min(n, at + self.block_symbols - self._clock() % self.block_symbols)
            yield slice(at, end)
            at = end

    @one_at_a_time
    def reset(self, keep_learning: bool = False) -> None:
        """Go back to the initial state. keep_learning: only forget the context; what was learned online stays."""
        if self._frozen_from:
            raise StateError("a frozen view has one place only: reset the stream, or fork it first")
        if keep_learning and self._started:
            self._forget_context()
        else:
            self._restart()
            self._resets += 1
        self._started, self._block = True, -1

    @one_at_a_time
    def probabilities(self, out: np.ndarray | None = None) -> np.ndarray:
        """P(symbol) of all 128 symbols (float64); symbol 127 is the escape, unused symbols have 0. ValueError if out cannot be filled."""
        out = checked_out(out, (SYMBOLS,))
        self._ready()
        self._fill(out)
        return out

    def log_probs(self, out: np.ndarray | None = None) -> np.ndarray:
        """Natural logarithms of probabilities(): float64 [128]; -inf for unused symbols."""
        out = self.probabilities(out)
        with np.errstate(divide="ignore"):
            return np.log(out, out=out)

    @one_at_a_time
    def predict(self) -> dict[str, float]:
        """P(char) of the whole alphabet, in symbol order. Rare characters follow when the escape has at least 1 %.

        What is not listed adds up to `unlisted_mass`: listed + unlisted = 1.
        """
        self._ready()
        p = self._scratch
        self._fill(p)
        listed = dict(zip(self._chars, p.tolist(), strict=False))
        escape = float(p[ESCAPE])
        self.unlisted_mass = escape
        if escape >= LIST_RARE_FROM:
            rare = self.alphabet.rare_probabilities
            listed.update((c, escape * q) for c, q in rare.items())
            self.unlisted_mass = escape * (1.0 - math.fsum(rare.values()))
        return listed

    @one_at_a_time
    def predict_char(self) -> str:
        """The most likely next character: the argmax of predict()."""
        self._ready()
        return self._char(self._likeliest())

    def _char(self, symbol: int) -> str:
        return self._chars[symbol] if symbol != ESCAPE else self._rare_chars[0]

    @one_at_a_time
    def probability(self, char: str) -> float:
        """P(char) now, without observing it."""
        symbol = self._symbol(char)
        self._ready()
        p = self._probability_of(symbol)
        return p * self.alphabet.rare_probability(char) if symbol == ESCAPE else p

    def _symbol(self, char: str) -> int:
        kind, wanted = (bytes, "bytes, one") if self.alphabet.of_bytes else (str, "a string of one character")
        if not isinstance(char, kind) or len(char) != 1:
            what = f"{len(char)} {'bytes' if kind is bytes else 'characters'}" if isinstance(char, kind) else type(char).__name__
            raise ValueError(f"expected {wanted}, not {what}")
        return self.alphabet.symbol_of.get(self.alphabet.text(char), ESCAPE)

    @one_at_a_time
    def observe(self, char: str) -> None:
        """Learn from the character that came, and move on."""
        symbol = self._symbol(char)
        self._ready()
        if self._frozen_from:
            self._move_on(symbol)
        else:
            self._step(symbol)

    @one_at_a_time
    def advise(self, advice: AnyAdvice) -> None:
        """Tell the model what its experts say of the next character: an Advice for each expert, or an array in the order of the
        alphabet's symbols, float64 [experts, 128].

        Advice holds until the next observe(); without it, and where a row is all 0, an expert is silent. ValueError for other shapes.
        """
        advice = self._checked_advice(advice, None)
        self._ready()
        self._take_advice(advice[0])

    def _checked_advice(self, advice: AnyAdvice | None, n: int | None) -> np.ndarray:
        """The advice for n characters (None: for one step) as float64 [n, experts, 128]; [0, experts, 128] if there is none."""
        if advice is None and n is not None:
            return np.empty((0, self.experts, SYMBOLS))
        from charstat.advice import advice_array  # here, because a submission has no experts and leaves that file out

        return advice_array(advice, self.alphabet, n, self.experts)

    def score(self, text: str, advice: AnyAdvice | None = None) -> np.ndarray:
        """Observe a text; bits of each character (float64), each predicted before it was observed.

        advice: what the experts say before each character: an Advice for each expert (advice.py), or an array in the order of the
        alphabet's symbols, float64 [len(text), experts, 128].
        """
        return self._run(text, False, advice)[1]

    def guess_and_score(self, text: str, advice: AnyAdvice | None = None) -> tuple[list[str], np.ndarray]:
        """Observe a text; the most likely character before each, and the bits of each."""
        return self._run(text, True, advice)

    @one_at_a_time
    def distributions(
        self,
        text: str,
        out: np.ndarray | None = None,
        advice: AnyAdvice | None = None,
        log: bool = False,
        dtype: type = np.float64,
        learn: bool = True,
    ) -> np.ndarray:
        """Observe a text; P of all 128 symbols before each character: [len(text), 128] of the dtype, each row as probabilities().

        log: natural logarithms instead, -inf for unused symbols. dtype: float64 or float32. learn: False leaves the stream where it is
        and as it is (freeze). ValueError for another dtype, or if out cannot be filled.
        """
        if dtype not in (np.float64, np.float32):
            raise ValueError(f"dtype must be float64 or float32, not {dtype!r}")
        symbols, advice = self.alphabet.encode(text), self._checked_advice(advice, len(text))
        out = checked_out(out, (len(text), SYMBOLS), dtype)
        reader = self if learn else self.freeze()
        p = np.empty(len(text))
        for part in reader._blocks(len(text)):
            rows = out[part] if dtype == np.float64 else np.empty((part.stop - part.start, SYMBOLS))
            reader._observe_symbols(symbols[part], p[part], NO_GUESSES, rows, advice[part])
            if log:
                with np.errstate(divide="ignore"):
                    np.log(rows, out=rows)
            if dtype != np.float64:
                out[part] = rows
        return out

    @one_at_a_time
    def _run(self, text: str, guess: bool, advice: AnyAdvice | None) -> tuple[list[str], np.ndarray]:
        symbols, advice = self.alphabet.encode(text), self._checked_advice(advice, len(text))
        p = np.empty(len(text))
        guesses = np.empty(len(text) if guess else 0, np.uint8)
        for part in self._blocks(len(text)):
            self._observe_symbols(symbols[part], p[part], guesses[part], NO_ROWS, advice[part])
        for i in np.flatnonzero(symbols == ESCAPE):
            p[i] *= self.alphabet.rare_probability(text[i : i + 1])
        return [self._char(g) for g in guesses.tolist()], -np.log2(p)
