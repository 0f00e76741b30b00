"""ContextTreeWeighting: context-tree weighting over symbol contexts, as a CharModel on a built model's count tables.

Willems, Shtarkov and Tjalkens 1995, of depth D = the highest order, over contexts of whole symbols; the next symbol is decomposed
into the decisions of the model's tree (tree.py), each with a context tree of its own (Volf 2002). Weights of everything
that the training text showed (weights.py) come with a model that was built for CTW, for all its orders; on another model, with
other options or fewer orders, they are computed from the tables when CTW is opened, as far as orders are exact. Counts and weights
go on changing while text is observed (kernels.py). Orders that the tables skip make longer steps: a context's children are
those of the next order present.

    estimator="kt"                Krichevsky and Trofimov 1981: (n1 + 1/2) / (n + 1)
    estimator="zero-redundancy"   1/2 KT + 1/4 [only zeros] + 1/4 [only ones]: a deterministic node costs at most 2 bits in all
                                  (Willems and Tjalkens, "Complexity reduction of the context-tree weighting method", 1997)
    estimator="adaptive"          (n1 + alpha) / (n + 2 alpha), Beta(alpha, alpha): alpha below 1/2 for the near-deterministic
                                  nodes of text

    A node that a longer context never saw predicts 1/2, as published. (Letting it predict as the shorter context does costs 0.024
    bits/char with KT at order 8 and 3 M characters: the 1/2 is what tells beta that the longer context is new.)

Measured (featured, 135.4 M characters, order 14, 2 cores): the weights of all orders, 146 M betas in 585 MB, take 28 seconds of the
build on 2 threads and 51 on one, where the counting takes 10 and 16; the build's peak is 3.6 GB. Those of orders 0..6, 27.5 M
betas, are computed from the tables when CTW is opened on a model without: 3 to 6 seconds. Online records take 24 bytes
of capacity each, 50 to 100 MB after 60,000 characters. val 120,000 to 180,000, accuracy and bits/char, TUNED: order 8 0.6887, 1.537
(as published, KT: 0.6692, 1.608; PPM-C: 0.6698, 1.653), order 11 0.7010, 1.489, order 14 0.7049, 1.477; with weights of orders
0..6 alone, order 11 0.6997, 1.506, order 14 0.7005, 1.511. Alpha at order 14, val 200,000 to 260,000: 0.1 1.4824, 0.2 1.4731,
0.3 1.4692, 0.4 1.4692, 0.5 (KT) 1.4696 bits/char.

Expert seam, for compiled code: distribution(ctw, out) fills out[:128] for the current history; path_probability(ctw, symbol) is one of
them; observe(ctw, symbol) learns (kernels.py). ctw is ContextTreeWeighting.state after reset(); before every batch of steps the caller
calls its model's ensure_room(steps) from Python and takes .state again.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from charstat.ctw.kernels import CTW, READY, USED, Records, distribution, new_records, refill, run
from charstat.ctw.links import is_exact
from charstat.ctw.weights import KT, ZERO_REDUNDANCY, weigh_text
from charstat.errors import ContextError
from charstat.ngram.chain import POSITION, build_chain, new_place, select_orders, start_text
from charstat.symbol_model import SymbolModel
from charstat.tree import LEAF, SYMBOLS

if TYPE_CHECKING:
    from charstat.model import Model

ESTIMATORS = ("kt", "zero-redundancy", "adaptive")
BLOCK_SYMBOLS = 256
FIRST_CAPACITY = 1 << 16
DEFAULT_LIMIT = 1 << 22  # online records
DETERMINISTIC_TABLE = 1 << 12
TUNED = {"estimator": "adaptive", "alpha": 0.3, "online_weight": 64.0, "decay": 0.9, "static_cap": 255.0, "beta_limit": 1e3}


@dataclass(frozen=True)
class CTWOptions:
    """See the top of the file. alpha: of estimator "adaptive". online_weight: what one observation adds to a count; decay: what
    the other count is multiplied with then; static_cap: static counts of a node are scaled down to this total. beta_limit: beta
    stays within 1 / beta_limit and beta_limit while streaming, so that it can turn. online=False: nothing is learned."""

    estimator: str = "kt"
    max_order: int | None = None
    alpha: float = 0.1
    online: bool = True
    online_weight: float = 1.0
    decay: float = 1.0
    static_cap: float = math.inf
    beta_limit: float = 1e12
    record_limit: int = DEFAULT_LIMIT

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise ContextError(f"no estimator is named {self.estimator!r}: there are {', '.join(ESTIMATORS)}")
        if not 0.0 < self.alpha < math.inf:
            raise ContextError(f"alpha is a positive number, not {self.alpha}")

    @property
    def beta_alpha(self) -> float:
        return self.alpha if self.estimator == "adaptive" else 0.5


def deterministic_escapes(size: int) -> np.ndarray:
    """float64 [size]: zero-redundancy's P(the other bit) after n equal ones."""
    out = np.full(size, 0.5)
    log_p = math.log(0.5)  # of n equal bits by KT; n = 1
    for n in range(1, size):
        kt = math.exp(log_p)
        out[n] = 0.5 * kt * 0.5 / (n + 1) / (0.5 * kt + 0.25)
        log_p += math.log((n + 0.5) / (n + 1))
    return out


def estimator_code(name: str) -> int:
    """What the kernels call an estimator; "adaptive" is KT's formula with another alpha."""
    return ZERO_REDUNDANCY if name == "zero-redundancy" else KT


def stored_weights(model: Model, options: CTWOptions) -> tuple[np.ndarray, np.ndarray] | None:
    """(beta, beta_at) that the model was built with; None where it has none, or those of other options or other orders.

    beta: float32, of all levels; beta_at: int64 [levels], where each level's start, -1 for a level without any.
    """
    stored, orders = model.weights, select_orders(model, options.max_order)
    if stored is None or list(stored.levels) != [c.name for c in orders[:-1]]:
        return None
    if (estimator_code(stored.estimator), stored.alpha) != (estimator_code(options.estimator), options.beta_alpha):
        return None
    return model.betas, np.array([*(at for at, _ in stored.levels.values()), -1], np.int64)


def table_weights(model: Model, options: CTWOptions) -> tuple[np.ndarray, np.ndarray]:
    """(beta, beta_at) from the count tables, on all threads, for the orders whose next one is at most 8: without the text,
    the parents of hashed contexts are unknown, and so the weights of the orders below."""
    tables = [model.tables[c.name] for c in select_orders(model, options.max_order)]
    exact = [t for t in reversed(tables) if is_exact(t)]
    tree, estimator = model.alphabet.tree.arrays, estimator_code(options.estimator)
    found = [b for _, b in weigh_text(exact, np.zeros(0, np.uint8), 0, tree, estimator, options.beta_alpha, os.cpu_count() or 1)][::-1]
    beta_at = np.full(len(tables), -1, np.int64)
    beta_at[: len(found)] = np.cumsum([0, *(b.size for b in found)])[:-1]
    beta = np.concatenate([np.zeros(0, np.float32), *found])
    beta.setflags(write=False)  # like a stored one, so that the kernels are compiled once
    return beta, beta_at


class ContextTreeWeighting(SymbolModel):
    """CTW as a CharModel on a built model. Options: CTWOptions, as keywords.

    weights_from: "model" where the static weights are those it was built with, "tables" where they were computed just now.
    """

    block_symbols = BLOCK_SYMBOLS

    def __init__(self, model: Model, **options):
        super().__init__(model)
        self.options = o = CTWOptions(**options)
        self.chain = build_chain(model, o.max_order)
        tree = self.alphabet.tree.arrays
        estimator = estimator_code(o.estimator)
        found = stored_weights(model, o)
        self.weights_from = "tables" if found is None else "model"
        self.beta, self._beta_at = table_weights(model, o) if found is None else found
        self._numbers = np.array([o.online_weight, o.decay, o.beta_alpha, o.beta_limit, o.static_cap])
        self._modes = np.array([estimator, o.online], np.int64)
        self._up = np.full((tree.child.shape[0], 2), -1, np.int64)
        for v, children in enumerate(tree.child.tolist()):
            for bit, c in enumerate(children):
                if c < LEAF:
                    self._up[c] = v, bit
        self._nodes = np.arange(tree.child.shape[0])
        self._deterministic = deterministic_escapes(DETERMINISTIC_TABLE)
        self._deepest = int(tree.depth.max())

    def _restart(self) -> None:
        levels = self.chain.param.size
        self.state = CTW(
            self.chain, self.alphabet.tree.arrays, self._up, self.beta, self._beta_at, self._deterministic, self._numbers, self._modes,
            new_place(levels), new_records(FIRST_CAPACITY), np.zeros(4, np.int64), np.full((levels, 3), -1, np.int64),
            np.zeros(levels, np.uint64), np.zeros((levels, SYMBOLS + 1)), np.zeros((levels, SYMBOLS + 1), np.int64),
            np.zeros((SYMBOLS, levels), np.int64), self._nodes, np.ones((SYMBOLS, levels)), np.zeros((SYMBOLS, levels)),
            np.zeros((SYMBOLS, levels)), np.zeros(SYMBOLS),
            np.zeros(SYMBOLS, np.int64), np.zeros(2 * SYMBOLS),
        )  # fmt: skip

    def _forget_context(self) -> None:
        start_text(self.state.place)
        self.state.at[READY] = 0

    @property
    def n_bytes(self) -> int:
        return self.beta.nbytes + (sum(a.nbytes for a in self.state.records) if self.state else 0)

    def _clock(self) -> int:
        return int(self.state.place.at[POSITION])

    def _make_room(self) -> None:
        s = self.state
        used = int(s.at[USED])
        new = self.block_symbols * self._deepest * self.chain.param.size
        capacity = s.records.keys.size
        oldest = np.uint32(0)
        if used > self.options.record_limit:
            stamps = s.records.stamps[s.records.keys != 0]
            oldest = np.uint32(np.partition(stamps, stamps.size // 2)[stamps.size // 2])
            oldest += np.uint32(oldest == stamps.min())  # a burst within one stamp: forget all of it
        elif 5 * (used + new) <= 3 * capacity:
            return
        else:
            while 5 * (used + new) > 3 * capacity:
                capacity *= 2
        records: Records = new_records(capacity)
        s.at[USED] = refill(s.records, records, oldest)
        s.at[READY] = 0
        self.state = s._replace(records=records)

    def _fill(self, out: np.ndarray) -> None:
        distribution(self.state, out)

    def _run_symbols(self, symbols: np.ndarray, p: np.ndarray, guesses: np.ndarray, rows: np.ndarray, advice: np.ndarray) -> None:
        run(self.state, symbols, p, guesses, rows, self._best_rare, self._scratch)
