"""What the token mixer's kernels are handed: what never changes, and what a stream has learned and looked up."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charstat.mixers.evidence import initial_logits, initial_match_logits
from charstat.mixers.layout import ChainBounds
from charstat.ngram.overlay import Overlay
from charstat.tokens.contexts import HISTORY, Pieces
from charstat.tokens.layout import Columns, Rows, TokenLayout, TokenRates
from charstat.tokens.match import LENGTH_BUCKETS, TokenMatch
from charstat.tokens.tree import MAX_DEPTH, TokenTree

POSITION, CLOCK, WARM, ACTIVE, ACTIVE_ORDERS, COUNTED, LONGEST, RECENT, CURSORS = range(9)  # of a stream's cursor
BITS, START_BITS, BUCKET_AT, RECORD_AT, ROW_AT, SUM_AT, ORDER, REACH, DECAY, FAMILY_COLUMNS = range(10)  # of families
START, END = range(2)  # of a stream's rows
LIST, LENGTH, SLOT, ONLINE_COLUMNS = range(4)  # of a stream's online lists


class Fixed(NamedTuple):
    """What never changes. F contexts."""

    families: np.ndarray  # int64 [F, FAMILY_COLUMNS]: each context's table, order, reach and decay
    masks: np.ndarray  # uint64 [F, HISTORY]
    id_bits: int
    buckets: np.ndarray  # the columns of all tables (table.py)
    records: np.ndarray
    rows: np.ndarray
    sums: np.ndarray
    tree: TokenTree
    plan: np.ndarray  # int32 [V - 1, 4]: the whole tree for kernels.decide
    pieces: Pieces
    count_states: np.ndarray
    online_states: np.ndarray
    ratio_bins: np.ndarray
    columns: Columns
    first_rows: Rows
    chains: ChainBounds
    rates: np.ndarray  # float64: the fields of TokenRates


class TokenMixer(NamedTuple):
    """What is learned beside counts; all of it float32."""

    weights: np.ndarray  # [rows, width] (layout.py)
    logits: np.ndarray  # [2 F, evidence.STATES]
    match: np.ndarray  # [2 LENGTH_BUCKETS]
    node_p: np.ndarray  # [V]: how often the right side of a node came
    node_n: np.ndarray  # [V]: and of how many tokens that is the mean


class TokenState(NamedTuple):
    """A stream's state: what was looked up for the next token, scratch, and what was learned. K inputs, D decisions at most."""

    cursor: np.ndarray  # int64 [CURSORS]
    history: np.ndarray  # uint64 [HISTORY]
    power: np.ndarray  # uint64 [1] (contexts.push_word)
    keys: np.ndarray  # uint64 [F]: overlay keys, 0 where a context reaches beyond the start
    identities: np.ndarray  # uint64 [F]
    static_rows: np.ndarray  # int64 [F, 2]
    online: np.ndarray  # int64 [F, ONLINE_COLUMNS]
    touched: np.ndarray  # int64 [F]
    active: np.ndarray  # int64 [F]: contexts that have counts here, cursor[ACTIVE] of them, the orders first
    mass: np.ndarray  # int32 [2 D + 1, 2 F]: counts and recent counts of active contexts under a path's nodes, and beside it
    kinds: np.ndarray  # int32 [2 D + 1, F]: and of how many rows and entries, of active orders
    plan: np.ndarray  # int32 [D, 4]: the path for kernels.decide
    path_reach: np.ndarray  # float64 [2 D + 1]: P of what has a row in `mass`
    tree_mass: np.ndarray  # int32 [2 V, 2 F]: under every node, and of leaf l at V + l; no rows until they are asked for
    tree_kinds: np.ndarray  # int32 [2 V, F]
    tree_reach: np.ndarray  # float64 [2 V]
    x: np.ndarray  # float32 [D, K]
    w: np.ndarray  # float32 [D, K]
    states: np.ndarray  # int32 [D, 2 F]
    bins: np.ndarray  # int32 [2 F]
    shares: np.ndarray  # float32 [2, F]
    discounts: np.ndarray  # float64 [2, F]: 1 / counts of an order, and what it leaves to the shorter ones
    path: np.ndarray  # int32 [1, D]
    bits: np.ndarray  # int32 [D]
    path_p: np.ndarray  # float64 [D]
    match_states: np.ndarray  # int32 [D]
    steps: np.ndarray  # float32 [D]
    selected: np.ndarray  # int64 [selector sets]
    base: np.ndarray  # float32 [K]
    total: np.ndarray  # float32 [K]: scratch, when mixing and when learning
    experts: np.ndarray  # float64 [E, V + 1]: cumulative probabilities by leaf
    overlay: Overlay
    match: TokenMatch
    mixer: TokenMixer


def new_token_mixer(layout: TokenLayout, rates: TokenRates, tree: TokenTree) -> TokenMixer:
    """The initial state."""
    v = np.arange(1, layout.vocab_size)
    p = np.full(layout.vocab_size, 0.5, np.float32)
    p[1:] = (tree.sums[tree.end[v]] - tree.sums[v]) / (tree.sums[tree.end[v]] - tree.sums[tree.lowest[v]])
    return TokenMixer(
        layout.initial_weights(rates),
        initial_logits(2 * layout.families),
        initial_match_logits(LENGTH_BUCKETS),
        p,
        np.full(layout.vocab_size, rates.node_least, np.float32),
    )


def new_token_state(layout: TokenLayout, overlay: Overlay, match: TokenMatch, mixer: TokenMixer) -> TokenState:
    """The start of a text, with this learned state."""
    f, kp, v = layout.families, layout.width, layout.vocab_size
    return TokenState(
        cursor=np.zeros(CURSORS, np.int64),
        history=np.zeros(HISTORY, np.uint64),
        power=np.ones(1, np.uint64),
        keys=np.zeros(f, np.uint64),
        identities=np.zeros(f, np.uint64),
        static_rows=np.zeros((f, 2), np.int64),
        online=np.zeros((f, ONLINE_COLUMNS), np.int64),
        touched=np.zeros(f, np.int64),
        active=np.zeros(f, np.int64),
        mass=np.zeros((2 * MAX_DEPTH + 1, 2 * f), np.int32),
        kinds=np.zeros((2 * MAX_DEPTH + 1, f), np.int32),
        plan=np.zeros((MAX_DEPTH, 4), np.int32),
        path_reach=np.zeros(2 * MAX_DEPTH + 1),
        tree_mass=np.zeros((0, 2 * f), np.int32),
        tree_kinds=np.zeros((0, f), np.int32),
        tree_reach=np.zeros(2 * v),
        x=np.zeros((MAX_DEPTH, kp), np.float32),
        w=np.zeros((MAX_DEPTH, kp), np.float32),
        states=np.zeros((MAX_DEPTH, 2 * f), np.int32),
        bins=np.zeros(2 * f, np.int32),
        shares=np.zeros((2, f), np.float32),
        discounts=np.zeros((2, f)),
        path=np.zeros((1, MAX_DEPTH), np.int32),
        bits=np.zeros(MAX_DEPTH, np.int32),
        path_p=np.zeros(MAX_DEPTH),
        match_states=np.full(MAX_DEPTH, -1, np.int32),
        steps=np.zeros(MAX_DEPTH, np.float32),
        selected=np.zeros(len(layout.rows) - 1, np.int64),
        base=np.zeros(kp, np.float32),
        total=np.zeros(kp, np.float32),
        experts=np.zeros((layout.experts, v + 1)),
        overlay=overlay,
        match=match,
        mixer=mixer,
    )
