"""A binary arithmetic coder: decisions of given probabilities, to bytes and back.

    low, range    the interval that the decisions so far have left; a decision keeps the part of it that its probability deserves
    P(1)          as an integer of 32 bits, the range has 25 to 33: rounding costs less than 0.001 % of a text

A carry is added to the bytes that are already there: a block's bytes stay in memory until it is finished. `code_bit` is encoder and
decoder in one, and so is everything that calls it: both sides run the same machine code on the same numbers.

Range coding: Martin, "Range encoding: an algorithm for removing redundancy from a digitised message", 1979. Decoding asks the coder and
the mixture in turn, five times a character. With a library's coder that would mean leaving the compiled loop and coming back each time
(`bench/codec.py --coder` measures both calls); this one is compiled into the loop.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

LOW, RANGE, CODE, AT = range(4)  # fields of Coder.state; AT: bytes written or read
CODE_BYTES = 4

U0, U1, U8, U24, U32 = np.uint64(0), np.uint64(1), np.uint64(8), np.uint64(24), np.uint64(32)
WHOLE, BOTTOM, MASK32 = np.uint64(1 << 32), np.uint64(1 << 24), np.uint64((1 << 32) - 1)
ONE = float(1 << 32)


class Coder(NamedTuple):
    """An interval, and the bytes that name it."""

    state: np.ndarray  # uint64 [4]
    data: np.ndarray  # uint8: to be written or read; beyond its end a decoder reads zeros


def new_encoder(room: int) -> Coder:
    """A coder that writes at most `room` bytes."""
    return Coder(np.array([0, WHOLE, 0, 0], np.uint64), np.zeros(room, np.uint8))


def new_decoder(data: bytes) -> Coder:
    """A coder that reads what finish() gave."""
    code = int.from_bytes(data[:CODE_BYTES].ljust(CODE_BYTES, b"\0"), "big")
    return Coder(np.array([0, WHOLE, code, CODE_BYTES], np.uint64), np.frombuffer(data, np.uint8).copy())


def with_room(coder: Coder, room: int) -> Coder:
    """The same encoder with room for `room` more bytes."""
    wanted = int(coder.state[AT]) + room
    if wanted <= coder.data.size:
        return coder
    data = np.zeros(max(wanted, 2 * coder.data.size), np.uint8)
    data[: coder.data.size] = coder.data
    return coder._replace(data=data)


def finish(coder: Coder) -> bytes:
    """The shortest bytes that a decoder reads as an encoder's decisions."""
    low, high, at = int(coder.state[LOW]), int(coder.state[LOW]) + int(coder.state[RANGE]) - 1, int(coder.state[AT])
    zeros = next(k for k in range(32, -1, -1) if high >> k << k >= low)  # the number in the interval with the most zeros at its end
    number = (int.from_bytes(coder.data[:at].tobytes(), "big") << 32) + (high >> zeros << zeros)
    return number.to_bytes(at + CODE_BYTES, "big").rstrip(b"\0")


@njit(cache=True, nogil=True, inline="always")
def code_bit(state, data, decode, bit, one):
    """Encode a bit, or decode and return it. one: P(1) of 2**32, uint64; both bits stay possible whatever it is. Arrays: a Coder's."""
    bound = min(max((state[RANGE] * one) >> U32, U1), state[RANGE] - U1)
    if decode:
        bit = np.int64(state[CODE] < bound)
    if bit:
        state[RANGE] = bound
    else:
        state[RANGE] -= bound
        if decode:
            state[CODE] -= bound
        else:
            state[LOW] += bound
            if state[LOW] >= WHOLE:
                state[LOW] &= MASK32
                carry(data, np.int64(state[AT]))
    while state[RANGE] < BOTTOM:
        at = np.int64(state[AT])
        state[RANGE] <<= U8
        if decode:
            state[CODE] = (state[CODE] << U8) | (np.uint64(data[at]) if at < data.shape[0] else U0)
        else:
            data[at] = np.uint8(state[LOW] >> U24)
            state[LOW] = (state[LOW] << U8) & MASK32
        state[AT] += U1
    return bit


@njit(cache=True, nogil=True)
def carry(data, end):
    """Add 1 to the number that data[:end] is."""
    at = end - 1
    while data[at] == np.uint8(255):
        data[at] = np.uint8(0)
        at -= 1
    data[at] += np.uint8(1)


@njit(cache=True, nogil=True)
def code_index(state, data, decode, edges, index):
    """Code an index with P(i) = (edges[i + 1] - edges[i]) / edges[-1], by bisection. edges: int64, rising from 0."""
    lo, hi = 0, edges.shape[0] - 1
    while hi - lo > 1:
        mid = (lo + hi) >> 1
        one = (np.uint64(edges[hi] - edges[mid]) << U32) // np.uint64(edges[hi] - edges[lo])
        if code_bit(state, data, decode, np.int64(index >= mid), one):
            lo = mid
        else:
            hi = mid
    return lo


@njit(cache=True, nogil=True)
def code_evenly(state, data, decode, n, index):
    """Code an index below n, all of them equally likely."""
    lo, hi = np.int64(0), np.int64(n)
    while hi - lo > 1:
        mid = (lo + hi) >> 1
        if code_bit(state, data, decode, np.int64(index >= mid), (np.uint64(hi - mid) << U32) // np.uint64(hi - lo)):
            lo = mid
        else:
            hi = mid
    return lo
