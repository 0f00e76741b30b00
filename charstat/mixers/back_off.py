"""Back-off chains: one probability from many contexts, each correcting the estimate of the shorter ones.

    p := (n1 + CHAIN_PRIOR p) / (n + CHAIN_PRIOR)        from p = 1/2 and the shortest context up

A Dirichlet prior whose mean is the shorter context's estimate (MacKay and Peto, "A hierarchical Dirichlet language model", 1995),
with one fixed strength. n counts static observations plus ONLINE_WEIGHT times the online ones.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from charstat.mixers.logistic import logit
from charstat.ngram.overlay import UNIT

CHAIN_PRIOR = 4.0  # counts that the shorter contexts' estimate is worth
ONLINE_WEIGHT = 4.0  # static counts that one online count is worth


@njit(cache=True, nogil=True, error_model="numpy")
def back_off(mass, i, ones, x, d, columns, shares, chains):
    """Inputs order_chain, nested_chain and word_chain of row d of x, at a node with masses mass[i] and `ones` under its 1-child.

    shares: float32 [2, F] scratch. chains: layout.ChainBounds.
    """
    families = shares.shape[1]
    for f in range(families):
        n = np.float32(mass[i, f]) + np.float32(ONLINE_WEIGHT / UNIT) * np.float32(mass[i, families + f])
        n1 = np.float32(ones[f]) + np.float32(ONLINE_WEIGHT / UNIT) * np.float32(ones[families + f])
        inverse = np.float32(1.0) / (n + np.float32(CHAIN_PRIOR))
        shares[0, f] = n1 * inverse
        shares[1, f] = np.float32(CHAIN_PRIOR) * inverse
    p = np.float32(0.5)
    for f in range(chains.orders_end):
        p = shares[0, f] + shares[1, f] * p
    x[d, columns.order_chain] = logit(np.float64(p))
    for f in range(chains.first_word, chains.nested_end):
        p = shares[0, f] + shares[1, f] * p
    x[d, columns.nested_chain] = logit(np.float64(p))
    for f in range(chains.nested_end, families):
        p = shares[0, f] + shares[1, f] * p
    x[d, columns.word_chain] = logit(np.float64(p))
