"""Numbers and symbols as binary decisions whose probabilities adapt, through the codec's arithmetic coder.

    symbol    its bits, the most significant first, each with a counter for every prefix: a binary tree, as in LZMA
    number    whether it is below 8, then three bits; or its class, eight bits, and the bits that the class leaves open
              class   8 + 4 (e - 3) + the two bits after the leading one, e = floor(log2 v)
    counter   P(1) of 2**16, moved by 1/32 of the error; open bits by 1/128

Two contexts may predict a symbol: the mean of both decides, and both learn. Encoder and decoder are one function, in integers: what one
machine wrote, any other reads.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from charstat.codec.coder import AT, code_bit

CLASSES = 256  # leaves of the largest tree, and so counters of a context; the first says whether a number is below FEW
FEW = 8
OPEN_BITS = 64 * 64  # counters of open bits: of every e, from the highest bit down
START = np.uint16(1 << 15)
FAST, SLOW = np.int64(5), np.int64(7)
U15, U16 = np.uint64(15), np.uint64(16)
ROOM = 4096  # bytes that the longest number takes, many times over


def counters(contexts: int) -> np.ndarray:
    """Fresh counters: uint16 [contexts, CLASSES]."""
    return np.full((contexts, CLASSES), START)


def open_counters() -> np.ndarray:
    """Fresh counters of open bits: uint16 [OPEN_BITS]."""
    return np.full(OPEN_BITS, START)


@njit(cache=True, nogil=True, inline="always")
def moved(counter, bit, rate):
    """The counter after a bit."""
    p = np.int64(counter)
    return np.uint16(p + ((65535 - p) >> rate)) if bit else np.uint16(p - (p >> rate))


@njit(cache=True, nogil=True)
def code_symbol(state, data, decode, symbol, bits, first, i, second, j):
    """Code a symbol of `bits` bits by the mean of two contexts' counters, first[i] and second[j]: uint16 [contexts, CLASSES] each."""
    node = np.int64(1)
    for k in range(bits - 1, -1, -1):
        a, b = first[i, node], second[j, node]
        bit = code_bit(state, data, decode, (symbol >> k) & 1, (np.uint64(a) + np.uint64(b)) << U15)
        first[i, node] = moved(a, bit, FAST)
        second[j, node] = moved(b, bit, FAST)
        node = 2 * node + bit
    return node - (np.int64(1) << bits)


@njit(cache=True, nogil=True, inline="always")
def floor_log2(value):
    """The place of the highest bit of a positive number: int64."""
    e = np.int64(0)
    v = np.uint64(value)
    while v > np.uint64(1):
        v >>= np.uint64(1)
        e += 1
    return e


@njit(cache=True, nogil=True)
def code_number(state, data, decode, value, first, i, second, j, open_bits):
    """Code a number from 0 to 2**63 - 1: its class by two contexts, then its open bits. int64; -1 for a class that no number has.

    A context is two rows of counters: i and i + 1, j and j + 1.
    """
    few, number_class, e = value < FEW, np.int64(value), np.int64(0)
    if not decode and not few:
        e = floor_log2(value)
        number_class = FEW + 4 * (e - 3) + ((value >> (e - 2)) & 3)
    a, b = first[i, 0], second[j, 0]
    few = code_bit(state, data, decode, np.int64(few), (np.uint64(a) + np.uint64(b)) << U15)
    first[i, 0] = moved(a, few, FAST)
    second[j, 0] = moved(b, few, FAST)
    if few:
        return code_symbol(state, data, decode, number_class, 3, first, i, second, j)
    number_class = code_symbol(state, data, decode, number_class, 8, first, i + 1, second, j + 1)
    e = 3 + ((number_class - FEW) >> 2)
    if e > 62 or number_class < FEW:
        return np.int64(-1)
    result = np.int64(4) + ((number_class - FEW) & 3)
    for k in range(e - 3, -1, -1):
        at = e * 64 + k
        bit = code_bit(state, data, decode, (value >> k) & 1, np.uint64(open_bits[at]) << U16)
        open_bits[at] = moved(open_bits[at], bit, SLOW)
        result = 2 * result + bit
    return result


@njit(cache=True, nogil=True, inline="always")
def has_room(state, data, numbers):
    """Whether an encoder has room for so many numbers, and some more."""
    return np.int64(state[AT]) + ROOM + 128 * numbers <= data.shape[0]
