"""ContextTreeWeighting: context-tree weighting over symbol contexts, as a CharModel on a built model's count tables.

Willems, Shtarkov and Tjalkens 1995, of depth D = the highest order, over contexts of whole symbols. The next symbol is decomposed
into the binary decisions of the model's code tree (tree.py), each with a context tree of its own (Volf 2002). A model built for CTW
stores the weights of everything in the training text, for all its orders (weights.py). On another model, or with another alpha or
fewer orders, they are computed from the tables when CTW is opened, as far as orders are exact. Counts and weights go on changing
while text is observed (kernels.py). If the tables skip orders, the tree takes longer steps: a context's children are those of the
next order present.

    alpha     the estimator is Beta(alpha, alpha): P(1) = (n1 + alpha) / (n + 2 alpha). 1/2 is KT (Krichevsky and Trofimov 1981),
              the published method and the default. Less than 1/2 fits the near-deterministic nodes of text.

    A node that a longer context never saw predicts 1/2, as published. (Letting it predict as the shorter context does costs 0.024
    bits/char with KT at order 8 and 3 M characters: the 1/2 is what tells beta that the longer context is new.)

Measured (featured, 135.4 M characters, order 14, 2 cores): computing the weights of all orders, 146 M betas in 585 MB, takes 28 seconds
of the build on 2 threads and 51 on one; the counting takes 10 and 16. The build peaks at 3.6 GB. Computing the 27.5 M betas of orders
0..6 from the tables, when CTW is opened on a model without weights, takes 3 to 6 seconds. Online records take 24 bytes of capacity
each, 50 to 100 MB after 60,000 characters. val 120,000 to 180,000, accuracy and bits/char, TUNED: order 8 0.6887, 1.537 (as published:
0.6692, 1.608; PPM-C: 0.6698, 1.653), order 11 0.7010, 1.489, order 14 0.7049, 1.477; with weights of orders 0..6 only, order 11 0.6997,
1.506, order 14 0.7005, 1.511. Alpha at order 14, val 200,000 to 260,000: 0.1 1.4824, 0.2 1.4731, 0.3 1.4692, 0.4 1.4692,
0.5 (KT) 1.4696 bits/char.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from charstat.ctw.kernels import CTW, READY, USED, Settings, distribution, new_records, refill, run
from charstat.ctw.links import is_exact
from charstat.ctw.weights import weigh_text
from charstat.errors import ContextError, FormatError
from charstat.ngram.chain import POSITION, build_chain, move_on, new_place, select_orders, start_text
from charstat.symbol_model import SymbolModel
from charstat.tree import LEAF, SYMBOLS

if TYPE_CHECKING:
    from charstat.model import Model

BLOCK_SYMBOLS = 256
FIRST_CAPACITY = 1 << 16
DEFAULT_LIMIT = 1 << 22  # online records
TUNED = {"alpha": 0.3, "online_weight": 64.0, "decay": 0.9, "static_cap": 255.0, "beta_limit": 1e3}


@dataclass(frozen=True)
class CTWOptions:
    """alpha: see the top of the file. max_order: None for the model's. online_weight: what one observation adds to a count. decay: what
    the other count is then multiplied by. static_cap: the static counts of a node are scaled down to this total. beta_limit: beta
    stays within 1 / beta_limit and beta_limit while streaming, so that it can recover. online=False: nothing is learned. record_limit:
    online records to hold before the older half is forgotten."""

    alpha: float = 0.5
    max_order: int | None = None
    online: bool = True
    online_weight: float = 1.0
    decay: float = 1.0
    static_cap: float = math.inf
    beta_limit: float = 1e12
    record_limit: int = DEFAULT_LIMIT

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < math.inf:
            raise ContextError(f"alpha must be a positive number, not {self.alpha}")


def stored_weights(model: Model, options: CTWOptions) -> tuple[np.ndarray, np.ndarray] | None:
    """(beta, beta_at) that the model was built with; None if it has none, or those of another alpha or of other orders.

    beta: float32, of all levels; beta_at: int64 [levels], where each level's betas start, -1 for a level without any.
    """
    stored, orders = model.weights, select_orders(model, options.max_order)
    if stored is None or list(stored.levels) != [c.name for c in orders[:-1]] or stored.alpha != options.alpha:
        return None
    return model.betas, np.array([*(at for at, _ in stored.levels.values()), -1], np.int64)


def table_weights(model: Model, options: CTWOptions) -> tuple[np.ndarray, np.ndarray]:
    """(beta, beta_at) from the count tables, on all threads, for the orders whose next one is at most 8.

    Without the text, the parents of hashed contexts are unknown, and so are the weights of the orders below them.
    """
    tables = [model.tables[c.name] for c in select_orders(model, options.max_order)]
    exact = [t for t in reversed(tables) if is_exact(t)]
    tree, no_text = model.alphabet.tree.arrays, np.zeros(0, np.uint8)
    try:
        levels = [betas for _, betas in weigh_text(exact, no_text, 0, tree, options.alpha, os.cpu_count() or 1)][::-1]
    except ValueError as e:  # tables that no text has together
        raise FormatError(f"the model's tables do not belong together: {e}") from None
    beta_at = np.full(len(tables), -1, np.int64)
    beta_at[: len(levels)] = np.cumsum([0, *(betas.size for betas in levels)])[:-1]
    beta = np.concatenate([np.zeros(0, np.float32), *levels])
    beta.setflags(write=False)  # like a stored one, so that the kernels are compiled once
    return beta, beta_at


class ContextTreeWeighting(SymbolModel):
    """CTW as a CharModel on a built model. Options: CTWOptions, as keywords.

    weights_from: "model" if the static weights are those it was built with, "tables" if they were computed on opening.
    """

    learned = ("records",)
    block_symbols = BLOCK_SYMBOLS  # short: a symbol makes up to depth x orders records

    def __init__(self, model: Model, **options):
        model.require_all_counts("context-tree weighting")
        super().__init__(model)
        self.options = o = CTWOptions(**options)
        self.chain = build_chain(model, o.max_order)
        tree = self.alphabet.tree.arrays
        stored = stored_weights(model, o)
        self.weights_from = "tables" if stored is None else "model"
        self.beta, self._beta_at = table_weights(model, o) if stored is None else stored
        self._up = np.full((tree.child.shape[0], 2), -1, np.int64)
        for v, children in enumerate(tree.child.tolist()):
            for bit, c in enumerate(children):
                if c < LEAF:
                    self._up[c] = v, bit
        self._deepest = int(tree.depth.max())

    def _restart(self) -> None:
        levels, o = self.chain.param.size, self.options
        self.state = CTW(
            chain=self.chain,
            tree=self.alphabet.tree.arrays,
            nodes=np.arange(self._up.shape[0]),
            up=self._up,
            beta=self.beta,
            beta_at=self._beta_at,
            settings=Settings(
                alpha=float(o.alpha),
                online=bool(o.online),
                online_weight=float(o.online_weight),
                decay=float(o.decay),
                static_cap=float(o.static_cap),
                beta_limit=float(o.beta_limit),
            ),
            place=new_place(levels),
            records=new_records(FIRST_CAPACITY),
            at=np.zeros(4, np.int64),
            context=np.full((levels, 3), -1, np.int64),
            keys=np.zeros(levels, np.uint64),
            mass=np.zeros((levels, SYMBOLS + 1)),
            types=np.zeros((levels, SYMBOLS + 1), np.int64),
            record=np.zeros((SYMBOLS, levels), np.int64),
            beta_now=np.ones((SYMBOLS, levels)),
            estimate=np.zeros((SYMBOLS, levels)),
            longer=np.zeros((SYMBOLS, levels)),
            p=np.zeros(SYMBOLS),
            evaluated=np.zeros(SYMBOLS, np.int64),
            reach=np.zeros(2 * SYMBOLS),
        )

    def _move_on(self, symbol: int) -> None:
        move_on(self.state.place, symbol)
        self.state.at[READY] = 0

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
        records = new_records(capacity)
        s.at[USED] = refill(s.records, records, oldest)
        s.at[READY] = 0
        self.state = s._replace(records=records)

    def _fill(self, out: np.ndarray) -> None:
        distribution(self.state, out)

    def _run_symbols(self, symbols: np.ndarray, p: np.ndarray, guesses: np.ndarray, rows: np.ndarray, advice: np.ndarray) -> None:
        run(self.state, symbols, p, guesses, rows, self._best_rare, self._scratch)
