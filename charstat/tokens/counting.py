"""From ids to the tables of all contexts, on the CPU or by array steps on a device; both give the same arrays, bit for bit.

    key = identity << b | leaf of the token that came     at every position that has the context's reach before it
    sorted keys -> runs -> lay_out()                      distinct keys are rows, distinct identities contexts

The CPU computes keys position by position and sorts partitions on all threads (cpu/sorting.py); a device computes them as whole arrays
(CuPy, or NumPy in the tests) and sorts them in one piece or in several (gpu/sorting.py). Words are spelled the same way twice: as a running
sum here, and on a device as the difference of prefix sums, divided by BASE to the power of where the word starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from charstat.cpu.backend import join_runs
from charstat.cpu.sorting import run_lengths, sorted_keys
from charstat.gpu.arrays import Array, Arrays
from charstat.gpu.keys import mix64 as mix64_of
from charstat.gpu.memory import plan_sort
from charstat.gpu.runs import run_lengths as run_lengths_of
from charstat.gpu.sorting import sorted_pieces
from charstat.ngram.hashing import SEED
from charstat.tokens.contexts import ALL, HISTORY, MAX_ORDER, TOKEN_BITS, TOKEN_WORDS, P, Pieces, TokenContext, push_tokens, token_identity
from charstat.tokens.table import TokenTable, lay_out

U1 = np.uint64(1)
WORD_PAD = HISTORY - TOKEN_WORDS - 1  # words before the first one: empty, hash 0


class Spelling(NamedTuple):
    """The words of a text: hash of the current one before each token, how many began before it, and the hashes of all."""

    current: Array  # uint64 [n]
    number: Array  # int32 [n]
    hashes: Array  # uint64 [WORD_PAD + words]


def id_bits(vocab_size: int) -> int:
    """Bits of a token id or leaf."""
    return max(1, (vocab_size - 1).bit_length())


def count_on_cpu(
    ids: np.ndarray,
    n_history: int,
    contexts: tuple[TokenContext, ...],
    leaf_of: np.ndarray,
    pieces: Pieces,
    threads: int,
    budget_bytes: int | None = None,
    phase: Callable = lambda name: nullcontext(),
) -> Iterator[TokenTable]:
    """The table of every context. ids: uint16 [n], of which the first n_history are context only."""
    bits = id_bits(leaf_of.size)
    spelling = no_spelling(np)
    if any(c.needs_words for c in contexts):
        with phase("words"):
            spelling = spell(ids, pieces)
    for context in contexts:
        first = min(ids.size, max(n_history, context.reach))
        masks = np.array(context.masks, np.uint64)

        def fill(lo: int, hi: int, out: np.ndarray, first: int = first, masks: np.ndarray = masks) -> int:
            _fill_keys(ids, leaf_of, *spelling, masks, np.uint64(bits), first + lo, first + hi, out)
            return hi - lo

        with phase(context.name):
            runs = [run_lengths(keys, bits, True, 0, threads) for keys in sorted_keys(fill, ids.size - first, 64, threads, budget_bytes)]
            yield lay_out(np, context, 64 - bits, *join_runs(runs))


def no_spelling(xp: Any) -> Spelling:
    return Spelling(xp.zeros(0, np.uint64), xp.zeros(0, np.int32), xp.zeros(WORD_PAD + 1, np.uint64))


def spell(ids: np.ndarray, pieces: Pieces) -> Spelling:
    """The words of a text of ids."""
    current, number = np.empty(ids.size, np.uint64), np.empty(ids.size, np.int32)
    hashes = np.zeros(WORD_PAD + 1 + int(pieces.starts[ids].sum(dtype=np.int64)), np.uint64)
    _spell(ids, *pieces, current, number, hashes)
    return Spelling(current, number, hashes)


@njit(cache=True, nogil=True)
def _spell(ids, hash_of, power_of, starts, current, number, hashes):
    word, power, k = np.uint64(0), U1, 0
    for i in range(ids.shape[0]):
        current[i], number[i] = word, k
        token = ids[i]
        if starts[token]:
            hashes[WORD_PAD + k] = word
            k += 1
            word, power = np.uint64(0), U1
        word += hash_of[token] * power
        power *= power_of[token]
    hashes[WORD_PAD + k] = word


@njit(cache=True, nogil=True)
def _fill_keys(ids, leaf_of, current, number, hashes, masks, bits, lo, hi, out):
    """out := identity << bits | leaf of the positions lo..hi."""
    history = np.zeros(HISTORY, np.uint64)
    for i in range(max(0, lo - MAX_ORDER), lo):
        push_tokens(history, ids[i])
    words = False
    for j in range(TOKEN_WORDS, HISTORY):
        words |= masks[j] != np.uint64(0)
    for i in range(lo, hi):
        if words:
            history[P] = current[i]
            for j in range(WORD_PAD):
                history[P + 1 + j] = hashes[WORD_PAD + number[i] - 1 - j]
        out[i - lo] = (token_identity(history, masks, bits) << bits) | np.uint64(leaf_of[ids[i]])
        push_tokens(history, ids[i])


def count_on_device(
    arrays: Arrays,
    ids: np.ndarray,
    n_history: int,
    contexts: tuple[TokenContext, ...],
    leaf_of: np.ndarray,
    pieces: Pieces,
    phase: Callable = lambda name: nullcontext(),
) -> Iterator[TokenTable]:
    """count_on_cpu() by array steps. MemoryError if the device is too small for it."""
    xp, bits = arrays.xp, id_bits(leaf_of.size)
    with phase("transfer"):
        tokens = arrays.to_device(ids.astype(np.uint16))
        leaves = arrays.to_device(leaf_of.astype(np.uint64))
    spelling = no_spelling(xp)
    if any(c.needs_words for c in contexts):
        with phase("words"):
            spelling = spell_on_device(arrays, tokens, pieces)
    for context in contexts:
        first = min(ids.size, max(n_history, context.reach))
        plan = plan_sort(ids.size - first, arrays.free_bytes(), arrays.chunk)
        if plan is None:
            raise MemoryError(f"{arrays.device} has too little memory to count {ids.size:,} tokens")
        fill = partial(_device_keys, xp, tokens, leaves, spelling, context, bits, first)
        parts = []
        for keys in sorted_pieces(arrays, fill, plan, 64, phase):
            with phase("reduce"):
                parts.append(run_lengths_of(arrays, [keys], bits, True))
            del keys
            if not plan.whole:
                parts[-1] = tuple(arrays.to_host(a) for a in parts[-1])
        with phase("reduce"):
            runs = join_runs(parts)
            table = lay_out(xp if plan.whole else np, context, 64 - bits, *runs)
        with phase("fetch"):
            yield (
                table._replace(**{name: arrays.to_host(getattr(table, name)) for name in ("buckets", "records", "rows", "sums")})
                if (plan.whole)
                else table
            )


def spell_on_device(arrays: Arrays, tokens: Array, pieces: Pieces) -> Spelling:
    """spell() by prefix sums: a word's hash is the difference of the text's, divided by BASE to the power of the bytes before it."""
    xp, n = arrays.xp, tokens.size
    inverses = np.array([pow(int(power) or 1, -1, ALL + 1) for power in pieces.powers], np.uint64)
    powers, inverse = (_before(xp, arrays.to_device(of)[tokens], xp.cumprod, U1) for of in (pieces.powers, inverses))
    sums = _before(xp, arrays.to_device(pieces.hashes)[tokens] * powers[:-1], xp.cumsum, np.uint64(0))
    starts = arrays.to_device(pieces.starts)[tokens]
    number = _before(xp, starts.astype(np.int32), xp.cumsum, np.int32(0))
    places = xp.concatenate([xp.zeros(1, np.int64), xp.flatnonzero(starts), xp.full(1, n, np.int64)])  # where words start; the end
    first = places[number[:-1]]
    hashes = xp.zeros(WORD_PAD + places.size - 1, np.uint64)
    hashes[WORD_PAD:] = (sums[places[1:]] - sums[places[:-1]]) * inverse[places[:-1]]
    return Spelling((sums[:-1] - sums[first]) * inverse[first], number[:-1], hashes)


def _before(xp: Any, values: Array, accumulate: Callable, start: Any) -> Array:
    """The sum or product of all values before each position, and of all: [n + 1]."""
    out = xp.empty(values.size + 1, values.dtype)
    out[:1] = start
    out[1:] = accumulate(values, dtype=values.dtype)
    return out


def _device_keys(
    xp: Any, tokens: Array, leaves: Array, spelling: Spelling, context: TokenContext, bits: int, first: int, at: int, out: Array
) -> None:
    """Keys at the positions from first + at on."""
    lo, n = first + at, out.size
    h = xp.full(n, SEED, np.uint64)
    for j, mask in enumerate(context.masks):
        if not mask:
            continue
        if j < TOKEN_WORDS:
            word = xp.zeros(n, np.uint64)
            for k in range(4):
                back = 4 * j + k + 1
                if (mask >> TOKEN_BITS * k) & 0xFFFF:
                    word |= tokens[lo - back : lo - back + n].astype(np.uint64) << np.uint64(TOKEN_BITS * k)
        elif j == P:
            word = spelling.current[lo : lo + n]
        else:
            word = spelling.hashes[spelling.number[lo : lo + n] + np.int32(WORD_PAD - (j - P))]
        h = mix64_of(h ^ word)
    h >>= np.uint64(bits)
    out[:] = (h << np.uint64(bits)) | leaves[tokens[lo : lo + n]]
