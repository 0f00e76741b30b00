"""From the history of a text to the identity of a context: the one place where keys are defined.

A context identity is an unsigned integer. A count-table key is identity << 7 | symbol (characters) or
identity << 24 | word id (words), and is unsigned 64-bit everywhere: a signed sort mis-orders keys whose top bit is set.

Character history is kept packed, 7 bits a symbol, newest lowest: h1 holds the last 8 symbols, h2 the 8 before, h3 the 8
before those; c1 and c2 hold the same for the classes of the characters (see contexts.class_map).

    order k <= 8          a bijection on 57 bits of the packed context: no two contexts share an identity
    everything else       the top 57 bits of a 64-bit hash; a context collides with one of n others with probability
                          n / 2**57: 5e-10 at 70 million contexts
    words                 the top 40 bits of a 64-bit hash; 1e-5 at 12 million contexts

The functions run inside numba kernels. mix64 is the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
"""

from __future__ import annotations

import numpy as np
from numba import njit

SYMBOL_BITS = 7  # of a symbol in packed words, keys and rows
IDENTITY_BITS = 57
WORD_ID_BITS = 24
WORD_IDENTITY_BITS = 40

CHARS, CLASSES_OF, SPARSE, WORDS = range(4)

SYMBOL_SHIFT = np.uint64(SYMBOL_BITS)
SYMBOL_MASK = np.uint64((1 << SYMBOL_BITS) - 1)
U0, U24 = np.uint64(0), np.uint64(24)
U28, U29, U49, U56 = np.uint64(28), np.uint64(29), np.uint64(49), np.uint64(56)
MASK56 = np.uint64((1 << 56) - 1)
MASK57 = np.uint64((1 << 57) - 1)
ODD_A = np.uint64(0xBF58476D1CE4E5B9)
ODD_B = np.uint64(0x94D049BB133111EB)
INVERSE_A = np.uint64(pow(int(ODD_A), -1, 1 << IDENTITY_BITS))
INVERSE_B = np.uint64(pow(int(ODD_B), -1, 1 << IDENTITY_BITS))
INVERSE64_A, INVERSE64_B = (np.uint64(pow(int(odd), -1, 1 << 64)) for odd in (ODD_A, ODD_B))
SEED = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True, inline="always")
def mix64(x):
    """A bijection on 64 bits with every output bit depending on every input bit."""
    x = (x ^ (x >> np.uint64(30))) * ODD_A
    x = (x ^ (x >> np.uint64(27))) * ODD_B
    return x ^ (x >> np.uint64(31))


@njit(cache=True, nogil=True, inline="always")
def unmix64(x):
    """The inverse of mix64."""
    x = (x ^ (x >> np.uint64(31)) ^ (x >> np.uint64(62))) * INVERSE64_B
    x = (x ^ (x >> np.uint64(27)) ^ (x >> np.uint64(54))) * INVERSE64_A
    return x ^ (x >> np.uint64(30)) ^ (x >> np.uint64(60))


@njit(cache=True, nogil=True, inline="always")
def mix57(x):
    """A bijection on 57 bits (xor-shifts and odd multiplications modulo 2**57)."""
    x = ((x ^ (x >> U29)) * ODD_A) & MASK57
    x = ((x ^ (x >> U28)) * ODD_B) & MASK57
    return x ^ (x >> U29)


@njit(cache=True, nogil=True, inline="always")
def unmix57(x):
    """The inverse of mix57."""
    x = x ^ (x >> U29)
    x = (x * INVERSE_B) & MASK57
    x = x ^ (x >> U28) ^ (x >> U56)
    x = (x * INVERSE_A) & MASK57
    return x ^ (x >> U29)


@njit(cache=True, nogil=True, inline="always")
def hash57(a, b, c):
    """57 bits of a hash of three 64-bit words."""
    return mix64(a ^ mix64(b ^ mix64(c + SEED))) >> np.uint64(64 - IDENTITY_BITS)


@njit(cache=True, nogil=True, inline="always")
def low_symbols(packed, k):
    """The newest k (0..8) symbols of a packed word."""
    return packed & ((np.uint64(1) << np.uint64(SYMBOL_BITS * k)) - np.uint64(1))


@njit(cache=True, nogil=True, inline="always")
def push_symbol(history, symbol, class_symbol):
    """Advance a packed history, uint64 [5] = h1, h2, h3, c1, c2, by one symbol."""
    history[2] = ((history[2] << SYMBOL_SHIFT) | (history[1] >> U49)) & MASK56
    history[1] = ((history[1] << SYMBOL_SHIFT) | (history[0] >> U49)) & MASK56
    history[0] = ((history[0] << SYMBOL_SHIFT) | np.uint64(symbol)) & MASK56
    history[4] = ((history[4] << SYMBOL_SHIFT) | (history[3] >> U49)) & MASK56
    history[3] = ((history[3] << SYMBOL_SHIFT) | np.uint64(class_symbol)) & MASK56


@njit(cache=True, nogil=True, inline="always")
def char_identity(kind, param, history):
    """57-bit identity of a character context. param: the order (CHARS, CLASSES_OF) or a position mask (SPARSE)."""
    h1, h2, h3 = history[0], history[1], history[2]
    if kind == CHARS:
        if param <= 8:
            return mix57(low_symbols(h1, param))
        if param <= 16:
            return hash57(h1, low_symbols(h2, param - 8), np.uint64(param))
        return hash57(h1, h2, (low_symbols(h3, param - 16) << SYMBOL_SHIFT) | np.uint64(param))
    if kind == CLASSES_OF:
        c1, c2 = history[3], history[4]
        if param <= 8:
            return hash57(low_symbols(c1, param), U0, ((h1 & SYMBOL_MASK) << SYMBOL_SHIFT) | np.uint64(param))
        return hash57(c1, low_symbols(c2, param - 8), ((h1 & SYMBOL_MASK) << SYMBOL_SHIFT) | np.uint64(param))
    packed = U0
    for j in range(8):
        if (param >> j) & 1:
            packed = (packed << SYMBOL_SHIFT) | ((h1 >> np.uint64(SYMBOL_BITS * j)) & SYMBOL_MASK)
    return mix57(packed)


# Word features: what a word context may look at, by the name of its field, each one uint64. `words.push_word` keeps them up to date.
# Append new ones: a field's place is a bit of the mask that identities are hashed with.
WORD_FIELDS = {
    "w1": "the previous word",
    "w2": "the word before w1",
    "w3": "the word before w2",
    "w4": "the word before w3",
    "shapes": "class of the first letter, and length or last character, of the last four words",
    "number": "the last word that starts with a digit",
    "capital": "the last word that starts with a capital",
    "lower1": "w1 in lower case",
    "lower2": "w2 in lower case",
    "suffix": "the last three characters of w1",
    "suffixes": "the last two characters of w1 and of w2",
    "k1": "the class of w1 among 256",
    "k2": "the class of w2 among 256",
    "k3": "the class of w3 among 256",
    "k4": "the class of w4 among 256",
    "K1": "the class of w1 among 1,024",
    "K2": "the class of w2 among 1,024",
    "topic": "what the last few hundred words are about, among 256 topics",
}
WORD_FEATURES = tuple(WORD_FIELDS)
N_FEATURES = len(WORD_FEATURES)
CLASS_FEATURES = ("k1", "k2", "k3", "k4", "K1", "K2", "topic")  # these need classes (ngram/classes.py)
CLASS_MASK = sum(1 << WORD_FEATURES.index(name) for name in CLASS_FEATURES)
HASH_MASK = sum(1 << WORD_FEATURES.index(name) for name in ("w1", "w2", "w3", "w4"))
FORM_MASK = (1 << N_FEATURES) - 1 - HASH_MASK - CLASS_MASK  # how words are spelled: shapes to suffixes
TOPIC = WORD_FEATURES.index("topic")


@njit(cache=True, nogil=True, inline="always")
def word_hash(mask, features):
    """64-bit hash of the word features selected by the bits of mask."""
    h = SEED + np.uint64(mask)
    j = 0
    while mask >> j:  # most masks have low bits only
        if (mask >> j) & 1:
            h = mix64(h ^ features[j])
        j += 1
    return h


@njit(cache=True, nogil=True, inline="always")
def word_identity(h):
    """40-bit identity of a word context."""
    return h >> U24
