"""What a token may be predicted from: contexts by name, and the identity of a context at a position, one integer.

    o3            the last three tokens
    t2, t1.t3     skips: the token before the last one alone; the last one and the third last
    p             the current word so far, the bytes since it began, in lower case
    p.w1, w1.w2   with the word before, or two words before; these need the bytes of the tokens

A history is eight words of 64 bits. A context is a mask over them, and its identity the hash of the words that it keeps:

    h0 h1 h2 h3   the last 16 tokens, 16 bits each, newest lowest          o3 keeps the low 48 bits of h0
    p w1 w2 w3    polynomial hashes of the current word and of the three before it

    h := mix64(h xor (word and mask)) for each word with a mask, from h = SEED          identity = the top 64 - b bits of h

b is the width of an id in bits, 16 at most: a count table's key is identity << b | leaf, so the token that came is in no identity. A
context that was never counted is taken for one of n others with probability n / 2**(64 - b): 1e-7 for 35 million contexts of 65,536
tokens, 1e-9 at 2,048. Nothing that reaches back beyond the start of the text is counted or looked up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from charstat.errors import ArgumentError, ContextError
from charstat.ngram.hashing import SEED, mix64

MAX_ORDER = 16
DEFAULT_ORDER = 8
MAX_VOCAB = 1 << 16
TOKEN_WORDS = 4  # words of a history that hold tokens, four in each
WORDS = ("p", "w1", "w2", "w3")
HISTORY = TOKEN_WORDS + len(WORDS)
P, W1 = TOKEN_WORDS, TOKEN_WORDS + 1  # where the current word and the one before it stand
ALL = (1 << 64) - 1
TOKEN_BITS = 16
ORDERS = (1, 2, 3, 4, 6, 8, 11, 16)  # what is counted by default, up to the highest, which is counted in any case
SKIPS = ("t2", "t1.t3")
WORD_CONTEXTS = ("p", "p.w1", "p.w2", "w1.w2")
BASE = 0x9E3779B97F4A7C15 | 1  # of the polynomial hashes: odd, so that it has an inverse modulo 2**64
U0, U16, U48 = np.uint64(0), np.uint64(16), np.uint64(48)


@dataclass(frozen=True)
class TokenContext:
    """A context by its name. masks: of the words of a history; reach: how many tokens it looks back, words aside."""

    name: str
    masks: tuple[int, ...]
    reach: int

    @property
    def order(self) -> int:
        """How many tokens in a row; 0 for skips and words."""
        return int(self.name[1:]) if self.name[0] == "o" else 0

    @property
    def needs_words(self) -> bool:
        return any(self.masks[TOKEN_WORDS:])


def parse_token_context(name: str) -> TokenContext:
    """The context of a name. ContextError if there is none."""
    masks, reach = [0] * HISTORY, 0
    if not isinstance(name, str):
        raise ContextError(f"a token context is named by a str such as 'o3', not {type(name).__name__}")
    if match := re.fullmatch(r"o([1-9]\d?)", name):
        places, words = range(1, int(match[1]) + 1), []
    else:
        parts = name.split(".")
        words = [part for part in parts if part in WORDS]
        places = [int(part[1:]) for part in parts if re.fullmatch(r"t[1-9]\d?", part)]
        if len(words) + len(places) != len(parts) or len(set(parts)) != len(parts) or not parts:
            raise ContextError(f"there is no token context {name!r}: o3, t2, t1.t3, p, p.w1 are some")
    for place in places:
        if place > MAX_ORDER:
            raise ContextError(f"{name}: token contexts look back {MAX_ORDER} tokens at most")
        masks[(place - 1) // 4] |= 0xFFFF << TOKEN_BITS * ((place - 1) % 4)
        reach = max(reach, place)
    for word in words:
        masks[TOKEN_WORDS + WORDS.index(word)] = ALL
    return TokenContext(name, tuple(masks), reach)


def token_contexts(order: int, with_words: bool, names: Sequence[str] | str | None = None) -> tuple[TokenContext, ...]:
    """The contexts to count: these, by default ORDERS up to `order`, the skips, and the words where pieces are known.

    Measured (BPE 2,048, 20 M characters counted, three windows of val): all orders to 8 and t2.t3 as well 1.4617 bits a character, these 1.4598.

    ContextError for names that do not exist, occur twice, or need pieces.
    """
    if names is None:
        names = (
            [f"o{k}" for k in sorted({order, *(k for k in ORDERS if k < order)})]
            + list(SKIPS)
            + (list(WORD_CONTEXTS) if with_words else [])
        )
    elif isinstance(names, str):
        names = names.split(",")
    found = tuple(parse_token_context(name) for name in names)
    if not found:
        raise ContextError("there is no context to count: o1 is the least")
    if len({c.masks for c in found}) != len(found):
        raise ContextError(f"a context occurs twice in {', '.join(c.name for c in found)}")
    for c in found:
        if c.needs_words and not with_words:
            raise ContextError(f"the context {c.name} is made of words: pass token_bytes, the bytes of every token")
    return tuple(sorted(found, key=lambda c: (c.needs_words, c.order == 0, c.order)))


class Pieces(NamedTuple):
    """What the contexts of words know of each token: uint64 [V] each, uint8 [V] the last. All of a vocabulary whose bytes are unknown are 0.

    A word's hash is sum_j byte_j BASE**j modulo 2**64 over its bytes in lower case: of a token that goes on with it, its own hash times
    BASE**(bytes so far).
    """

    hashes: np.ndarray
    powers: np.ndarray  # BASE ** its bytes
    starts: np.ndarray  # whether it begins a word (or is one of its own, like a comma)


def no_pieces(vocab_size: int) -> Pieces:
    return Pieces(np.zeros(vocab_size, np.uint64), np.zeros(vocab_size, np.uint64), np.zeros(vocab_size, np.uint8))


def describe_pieces(token_bytes: Sequence[bytes]) -> Pieces:
    """The Pieces of a vocabulary. A token begins a word unless its first byte can stand inside one: letters, digits, ' and bytes above 127."""
    pieces = no_pieces(len(token_bytes))
    for i, piece in enumerate(token_bytes):
        h, power = 0, 1
        for byte in piece.lower().strip(b" "):
            h, power = (h + (byte + 1) * power) & ALL, power * BASE & ALL
        pieces.hashes[i], pieces.powers[i] = h, power
        pieces.starts[i] = not piece or not (piece[:1].isalnum() or piece[0] >= 128 or piece[:1] == b"'")
    return pieces


def check_token_bytes(token_bytes: Sequence[bytes], vocab_size: int) -> list[bytes]:
    """The pieces as a list. ArgumentError unless there is one for every id."""
    if isinstance(token_bytes, bytes | str) or not isinstance(token_bytes, Sequence):
        raise ArgumentError(f"token_bytes must be a list of the bytes of every token, not {type(token_bytes).__name__}")
    pieces = list(token_bytes)
    if len(pieces) != vocab_size:
        raise ArgumentError(f"token_bytes has {len(pieces):,} pieces, and the vocabulary {vocab_size:,} tokens")
    for i, piece in enumerate(pieces):
        if not isinstance(piece, bytes):
            raise ArgumentError(f"token {i} is {type(piece).__name__}, not bytes")
    return pieces


@njit(cache=True, nogil=True, inline="always")
def push_tokens(history, token):
    """Move the last 16 tokens on by one. history: uint64 [HISTORY]."""
    for j in range(TOKEN_WORDS - 1, 0, -1):
        history[j] = (history[j] << U16) | (history[j - 1] >> U48)
    history[0] = (history[0] << U16) | np.uint64(token)


@njit(cache=True, nogil=True, inline="always")
def push_word(history, power, token, pieces):
    """Move the words on by one token. power: uint64 [1], BASE ** the bytes of the current word so far."""
    if pieces.starts[token]:
        for j in range(HISTORY - 1, P, -1):
            history[j] = history[j - 1]
        history[P] = U0
        power[0] = np.uint64(1)
    history[P] += pieces.hashes[token] * power[0]
    power[0] *= pieces.powers[token]


@njit(cache=True, nogil=True, inline="always")
def token_identity(history, masks, shift):
    """The identity of a context, the top 64 - shift bits. masks: uint64 [HISTORY], one context's."""
    h = SEED
    for j in range(HISTORY):
        if masks[j] != U0:
            h = mix64(h ^ (history[j] & masks[j]))
    return h >> np.uint64(shift)
