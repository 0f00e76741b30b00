"""An arithmetic coder: what score() promises can be had, and read back."""

from functools import lru_cache
from itertools import accumulate

import numpy as np
import pytest
from oracles import ESCAPE
from streams import fresh

from charstat.alphabet import CODE_POINTS

CODE_BITS = 32
TOP, HALF, QUARTER = 1 << CODE_BITS, 1 << CODE_BITS - 1, 1 << CODE_BITS - 2
SCALE = 1 << 28  # frequencies add up to at most this; the coder's range is never below a quarter of TOP


class Encoder:
    """Witten, Neal, Cleary, "Arithmetic coding for data compression", 1987."""

    def __init__(self):
        self.low, self.high, self.waiting, self.bits = 0, TOP - 1, 0, []

    def encode(self, start, end, total):
        span = self.high - self.low + 1
        self.low, self.high = self.low + span * start // total, self.low + span * end // total - 1
        while True:
            if self.high < HALF:
                self._put(0)
            elif self.low >= HALF:
                self._put(1)
                self.low, self.high = self.low - HALF, self.high - HALF
            elif self.low >= QUARTER and self.high < HALF + QUARTER:
                self.waiting += 1
                self.low, self.high = self.low - QUARTER, self.high - QUARTER
            else:
                return
            self.low, self.high = 2 * self.low, 2 * self.high + 1

    def _put(self, bit):
        self.bits += [bit] + [1 - bit] * self.waiting
        self.waiting = 0

    def finish(self):
        self.waiting += 1
        self._put(0 if self.low < QUARTER else 1)
        return self.bits


class Decoder:
    def __init__(self, bits):
        self.bits = iter(bits)
        self.low, self.high, self.code = 0, TOP - 1, 0
        for _ in range(CODE_BITS):
            self._take()

    def _take(self):
        self.code = 2 * self.code + next(self.bits, 0)

    def target(self, total):
        return ((self.code - self.low + 1) * total - 1) // (self.high - self.low + 1)

    def decode(self, start, end, total):
        span = self.high - self.low + 1
        self.low, self.high = self.low + span * start // total, self.low + span * end // total - 1
        while True:
            if self.high < HALF:
                offset = 0
            elif self.low >= HALF:
                offset = HALF
            elif self.low >= QUARTER and self.high < HALF + QUARTER:
                offset = QUARTER
            else:
                return
            self.low, self.high, self.code = 2 * (self.low - offset), 2 * (self.high - offset) + 1, self.code - offset
            self._take()


def symbol_edges(stream):
    """Cumulative integer frequencies of the 128 symbols; every symbol of the alphabet has at least one."""
    p = stream.probabilities()
    return [0, *accumulate(int(q * (SCALE - 128)) + (q > 0) for q in p.tolist())]


def rare_edges(alphabet):
    """The rare characters seen in training and their edges; what is left is shared by all other code points."""
    rare = list(alphabet.rare)
    edges = [0, *accumulate(alphabet.rare[c] for c in rare)]
    return rare, edges, edges[-1] + len(rare) + 1


@lru_cache
def unseen_code_points(known):
    return np.setdiff1d(np.arange(CODE_POINTS), [ord(c) for c in known]).tolist()


def compress(stream, text):
    encoder, alphabet = Encoder(), stream.alphabet
    rare, edges, total = rare_edges(alphabet)
    unseen = unseen_code_points((*alphabet.chars, *rare))
    for c in text:
        cumulative = symbol_edges(stream)
        s = alphabet.symbol_of.get(c, ESCAPE)
        encoder.encode(cumulative[s], cumulative[s + 1], cumulative[-1])
        if s == ESCAPE:
            if c in alphabet.rare:
                i = rare.index(c)
                encoder.encode(edges[i], edges[i + 1], total)
            else:
                encoder.encode(edges[-1], total, total)
                i = unseen.index(ord(c))
                encoder.encode(i, i + 1, len(unseen))
        stream.observe(c)
    return encoder.finish()


def decompress(stream, bits, n):
    decoder, alphabet = Decoder(bits), stream.alphabet
    rare, edges, total = rare_edges(alphabet)
    unseen = unseen_code_points((*alphabet.chars, *rare))

    def read(cumulative, whole):
        target = decoder.target(whole)
        i = int(np.searchsorted(cumulative, target, "right")) - 1
        decoder.decode(cumulative[i], cumulative[i + 1] if i + 1 < len(cumulative) else whole, whole)
        return i

    text = ""
    for _ in range(n):
        cumulative = symbol_edges(stream)
        s = read(cumulative, cumulative[-1])
        if s == ESCAPE:
            i = read(edges, total)
            c = rare[i] if i < len(rare) else chr(unseen[read(range(len(unseen)), len(unseen))])
        else:
            c = alphabet.chars[s]
        stream.observe(c)
        text += c
    return text


@pytest.mark.parametrize("which", ["model", "crowded_model"])
def test_arithmetic_coding(which, held_out, request):
    model = request.getfixturevalue(which)
    text = held_out[:1500]
    promised = fresh(model).score(text).sum()
    bits = compress(fresh(model), text)
    assert decompress(fresh(model), bits, len(text)) == text
    assert abs(len(bits) - promised) < 0.01 * promised
