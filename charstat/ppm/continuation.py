"""Continuation counts: in how many longer contexts a symbol was seen, instead of how often.

For a context and a symbol, the number of contexts of the next longer order of the chain that end in the context and were
followed by the symbol. Kneser and Ney (1995) count this way at lower orders; PPM with update exclusion (Moffat 1990) holds the
same numbers after the same text, because it counts a symbol at an order only where the longer context had not seen it.

    "abracadabra", orders 0 and 1:  o1 has  a -> b c d   b -> r   c -> a   d -> a   r -> a
                                    o0 counts a 5 b 2 c 1 d 1 r 2, continuation counts a 3 b 1 c 1 d 1 r 1

They come from the next order's table alone: up to order 8 an identity is a bijection of its context. Orders whose next order
is hashed (above 8), and the longest order, keep plain counts; so does order 0's first symbol, which no context came before.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from charstat.ngram.contexts import EXACT_ORDER
from charstat.ngram.hashing import IDENTITY_BITS, MASK57, ODD_A, ODD_B, SYMBOL_BITS, U28, U29, U56, low_symbols, mix57
from charstat.ngram.table import MAX_COUNT, ROW_MASK, find_context, row_count, row_symbol
from charstat.ppm.chain import Chain

INVERSE_A = np.uint64(pow(int(ODD_A), -1, 1 << IDENTITY_BITS))
INVERSE_B = np.uint64(pow(int(ODD_B), -1, 1 << IDENTITY_BITS))
ONE_COUNT = np.uint32(1 << SYMBOL_BITS)


@njit(cache=True, nogil=True, inline="always")
def unmix57(x):
    """The inverse of hashing.mix57: the packed context of an exact identity."""
    x = x ^ (x >> U29)
    x = (x * INVERSE_B) & MASK57
    x = x ^ (x >> U28) ^ (x >> U56)
    x = (x * INVERSE_A) & MASK57
    return x ^ (x >> U29)


@njit(cache=True, nogil=True, inline="always")
def parent_rows(chain, k, packed):
    """Rows (relative to its level) of the level-k context that a packed longer context ends in."""
    return find_context(
        mix57(low_symbols(packed, chain.param[k])), chain.width[k], chain.bits[k], chain.start_bits[k],
        chain.buckets, chain.bucket_at[k], chain.records, chain.record_at[k],
    )  # fmt: skip


def derivable(chain: Chain, k: int) -> bool:
    """Whether level k's continuation counts follow from the tables."""
    return k + 1 < chain.param.size and int(chain.param[k + 1]) <= EXACT_ORDER


def level_sizes(chain: Chain, k: int) -> tuple[int, int]:
    """(contexts, rows) of a level."""
    contexts = int(chain.buckets[chain.bucket_at[k] + (1 << int(chain.bits[k]))])
    last = chain.records[int(chain.record_at[k]) + contexts]
    return contexts, int(last & np.uint64((1 << int(chain.start_bits[k])) - 1))


def with_continuation(chain: Chain) -> Chain:
    """The chain with continuation counts where they are derivable: 4 bytes a row of those levels."""
    levels = [k for k in range(chain.param.size) if derivable(chain, k)]
    sizes = [level_sizes(chain, k)[1] for k in levels]
    lower = np.empty(sum(sizes), np.uint32)
    lower_at = np.full(chain.param.size, -1, np.int64)
    at = 0
    for k, size in zip(levels, sizes, strict=True):
        row_at = int(chain.row_at[k])
        lower[at : at + size] = chain.rows[row_at : row_at + size] & ROW_MASK
        lower_at[k] = at
        _count_continuations(chain, k, lower[at : at + size])
        at += size
    return chain._replace(lower=lower, lower_at=lower_at)


@njit(cache=True, nogil=True)
def _count_continuations(chain, k, lower):
    """One pass over the contexts of level k + 1; a row that no longer context accounts for counts 1 (the text's start)."""
    longer = k + 1
    low = np.uint64(chain.width[longer] - chain.bits[longer])
    check = (np.uint64(1) << low) - np.uint64(1)
    start_bits = np.uint64(chain.start_bits[longer])
    start_mask = (np.uint64(1) << start_bits) - np.uint64(1)
    record_at, row_at = chain.record_at[longer], chain.row_at[longer]
    for b in range(1 << chain.bits[longer]):
        at = chain.bucket_at[longer] + b
        for r in range(record_at + np.int64(chain.buckets[at]), record_at + np.int64(chain.buckets[at + 1])):
            identity = (np.uint64(b) << low) | ((chain.records[r] >> start_bits) & check)
            lo, hi = parent_rows(chain, k, unmix57(identity))
            p = lo
            # Both are sorted by symbol, and every symbol of the longer context was seen in the shorter one.
            for q in range(np.int64(chain.records[r] & start_mask), np.int64(chain.records[r + 1] & start_mask)):
                symbol = row_symbol(chain.rows[row_at + q])
                while p < hi and row_symbol(lower[p]) < symbol:
                    p += 1
                if p < hi and row_symbol(lower[p]) == symbol and row_count(lower[p]) < MAX_COUNT:
                    lower[p] += ONE_COUNT
    for p in range(lower.shape[0]):
        if lower[p] < ONE_COUNT:
            lower[p] += ONE_COUNT
