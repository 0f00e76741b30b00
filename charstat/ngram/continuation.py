"""Continuation counts: in how many longer contexts a symbol was seen, instead of how often.

For a context and a symbol: the number of contexts of the chain's next longer order that end in the context and that the symbol
followed. Kneser and Ney (1995) count this way at lower orders. PPM with update exclusion (Moffat 1990) arrives at the same numbers,
because it counts a symbol at an order only if the longer context had not seen it.

    "abracadabra", orders 0 and 1:  o1 has  a -> b c d   b -> r   c -> a   d -> a   r -> a
                                    o0 counts a 5 b 2 c 1 d 1 r 2, continuation counts a 3 b 1 c 1 d 1 r 1

They follow from the next order's table alone, because up to order 8 an identity is a bijection of its context. An order whose next
order is hashed (above 8) and the longest order keep plain counts. A row that no longer context accounts for, at the very start of
the text, counts 1.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from charstat.ngram.chain import Chain
from charstat.ngram.contexts import EXACT_ORDER
from charstat.ngram.hashing import SYMBOL_BITS, low_symbols, mix57, unmix57
from charstat.ngram.table import MAX_COUNT, ROW_MASK, find_context, record_identity, row_count, row_symbol

ONE_COUNT = np.uint32(1 << SYMBOL_BITS)


@njit(cache=True, nogil=True, inline="always")
def parent_rows(chain, k, packed):
    """Rows (relative to its level) of the level-k context that a packed longer context ends in."""
    _, start, end = find_context(
        mix57(low_symbols(packed, chain.param[k])), chain.width[k], chain.bits[k], chain.start_bits[k],
        chain.buckets, chain.bucket_at[k], chain.records, chain.record_at[k],
    )  # fmt: skip
    return start, end


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
    continued = np.empty(sum(sizes), np.uint32)
    continued_at = np.full(chain.param.size, -1, np.int64)
    at = 0
    for k, size in zip(levels, sizes, strict=True):
        row_at = int(chain.row_at[k])
        continued[at : at + size] = chain.rows[row_at : row_at + size] & ROW_MASK
        continued_at[k] = at
        _count_continuations(chain, k, continued[at : at + size])
        at += size
    return chain._replace(continued=continued, continued_at=continued_at)


@njit(cache=True, nogil=True)
def _count_continuations(chain, k, continued):
    """One pass over the contexts of level k + 1. continued: level k's rows, with counts of 0."""
    longer = k + 1
    width, bits, start_bits = chain.width[longer], chain.bits[longer], chain.start_bits[longer]
    start_mask = (np.uint64(1) << np.uint64(start_bits)) - np.uint64(1)
    record_at, row_at = chain.record_at[longer], chain.row_at[longer]
    for b in range(1 << bits):
        at = chain.bucket_at[longer] + b
        for r in range(record_at + np.int64(chain.buckets[at]), record_at + np.int64(chain.buckets[at + 1])):
            lo, hi = parent_rows(chain, k, unmix57(record_identity(b, chain.records[r], width, bits, start_bits)))
            p = lo
            # Both are sorted by symbol, and every symbol of the longer context was seen in the shorter one.
            for q in range(np.int64(chain.records[r] & start_mask), np.int64(chain.records[r + 1] & start_mask)):
                symbol = row_symbol(chain.rows[row_at + q])
                while p < hi and row_symbol(continued[p]) < symbol:
                    p += 1
                if p < hi and row_symbol(continued[p]) == symbol and row_count(continued[p]) < MAX_COUNT:
                    continued[p] += ONE_COUNT
    for p in range(continued.shape[0]):
        if continued[p] < ONE_COUNT:
            continued[p] += ONE_COUNT
