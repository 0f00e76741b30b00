"""The CUDA kernels: steps that would take several passes over device memory with array operations.

    char_keys       identity << 7 | symbol of a character context at every position      launched by keys.char_keys
    window_keys     packed 9-grams                                                        keys.window_keys
    mark_changes    1 where a key differs from the one before it, above `shift`           runs.changes
    token_hashes    64-bit hash of every token                                            tokens.token_hashes
    word_keys       identity << 24 | word id of a word context at every token             tokens.word_keys

The function that launches a kernel also has the same step as array operations (its array twin), for NumPy and for tests. One thread
per element, grid-stride, no shared memory, no atomics, no barriers: the result does not depend on the order in which threads run, and
a C++ compiler can run the same source on a host, one thread after another (tests/test_gpu.py does). The source includes no headers,
so that NVRTC needs none. The hash constants come from hashing.py.
"""

from __future__ import annotations

from charstat.ngram import hashing, words
from charstat.ngram.contexts import Context
from charstat.ngram.hashing import CHARS, CLASSES_OF, ODD_A, ODD_B, SEED, SPARSE, WORD_FEATURES

THREADS = 256  # of a block
MAX_BLOCKS = 1 << 20  # the loops are grid-stride: beyond this, a thread takes several elements

NAMES = ("char_keys", "window_keys", "mark_changes", "token_hashes", "word_keys")

# word_keys numbers the word features in this order. A context with a field that is not here is counted on the CPU.
DEVICE_FIELDS = ("w1", "w2", "w3", "w4", "shapes", "number", "capital", "lower1", "lower2", "suffix", "suffixes")
DEVICE_FIELDS += ("k1", "k2", "k3", "k4", "K1", "K2", "topic")
assert WORD_FEATURES[: len(DEVICE_FIELDS)] == DEVICE_FIELDS

_CONSTANTS = {
    "ODD_A": ODD_A,
    "ODD_B": ODD_B,
    "SEED": SEED,
    "MASK57": hashing.MASK57,
    "CHARS": CHARS,
    "CLASSES_OF": CLASSES_OF,
    "SPARSE": SPARSE,
    "FEATURES": len(DEVICE_FIELDS),
    "MAX_WORD": words.MAX_WORD,
}


def has_kernel(context: Context) -> bool:
    """Whether the device can make this context's keys."""
    if context.is_words:
        return context.param >> len(DEVICE_FIELDS) == 0
    return context.kind in (CHARS, CLASSES_OF, SPARSE)


_BODY = r"""
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define EACH(i, n) \
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (i64)gridDim.x * blockDim.x)

__device__ __forceinline__ u64 mix64(u64 x) {
    x = (x ^ (x >> 30)) * ODD_A;
    x = (x ^ (x >> 27)) * ODD_B;
    return x ^ (x >> 31);
}

__device__ __forceinline__ u64 mix57(u64 x) {
    x = ((x ^ (x >> 29)) * ODD_A) & MASK57;
    x = ((x ^ (x >> 28)) * ODD_B) & MASK57;
    return x ^ (x >> 29);
}

__device__ __forceinline__ u64 hash57(u64 a, u64 b, u64 c) {
    return mix64(a ^ mix64(b ^ mix64(c + SEED))) >> 7;
}

/* The k symbols before `end`, 7 bits each, newest lowest. */
__device__ __forceinline__ u64 packed(const u8* symbols, const u8* end, int k) {
    u64 word = 0;
    for (const u8* s = end - k; s < end; s++) word = word << 7 | *s;
    return word;
}

__device__ __forceinline__ u64 packed_classes(const u8* classes, const u8* end, int k) {
    u64 word = 0;
    for (const u8* s = end - k; s < end; s++) word = word << 7 | classes[*s];
    return word;
}

/* identity << 7 | symbol at symbols[first + i]; at least as many symbols precede each position as the context looks back. */
extern "C" __global__ void char_keys(const u8* symbols, const u8* classes, int kind, int param, i64 first, i64 n, u64* out) {
    EACH(i, n) {
        const u8* at = symbols + first + i;
        u64 identity = 0;
        if (kind == CHARS) {
            if (param <= 8)
                identity = mix57(packed(symbols, at, param));
            else if (param <= 16)
                identity = hash57(packed(symbols, at, 8), packed(symbols, at - 8, param - 8), param);
            else
                identity = hash57(packed(symbols, at, 8), packed(symbols, at - 8, 8), packed(symbols, at - 16, param - 16) << 7 | (u64)param);
        } else if (kind == CLASSES_OF) {
            u64 last = (u64)at[-1] << 7 | (u64)param;
            if (param <= 8)
                identity = hash57(packed_classes(classes, at, param), 0, last);
            else
                identity = hash57(packed_classes(classes, at, 8), packed_classes(classes, at - 8, param - 8), last);
        } else {
            u64 word = 0;
            for (int j = 0; j < 8; j++)
                if (param >> j & 1) word = word << 7 | at[-1 - j];
            identity = mix57(word);
        }
        out[i] = identity << 7 | *at;
    }
}

/* Packed `width`-grams that start at symbols[first + i], oldest symbol highest. */
extern "C" __global__ void window_keys(const u8* symbols, int width, i64 first, i64 n, u64* out) {
    EACH(i, n) out[i] = packed(symbols, symbols + first + i + width, width);
}

extern "C" __global__ void mark_changes(const u64* keys, int shift, i64 n, u8* flags) {
    EACH(i, n) flags[i] = i == 0 || (keys[i] ^ keys[i - 1]) >> shift != 0;
}

/* Token t is symbols[edges[t] .. edges[t + 1]), known by its first MAX_WORD symbols. */
extern "C" __global__ void token_hashes(const u8* symbols, const i64* edges, i64 n, u64* out) {
    EACH(t, n) {
        i64 start = edges[t], end = edges[t + 1];
        if (end > start + MAX_WORD) end = start + MAX_WORD;
        u64 h = 0;
        for (i64 i = start; i < end; i++) {
            h = (h + symbols[i] + 1) * ODD_B;
            h ^= h >> 32;
        }
        out[t] = h;
    }
}

/* identity << 24 | word id of the tokens first .. first + n. See tokens.WordTokens for the arrays. */
extern "C" __global__ void word_keys(const u32* ids, const u32* rank, const u32* spoken,
                                     const u64* hash, const u64* lower, const u64* shape, const u64* suffix, const u64* ending,
                                     const u16* small, const u16* large, const u16* topics, const u32* numbers_before, const u32* numbers, const u32* capitals_before, const u32* capitals,
                                     int mask, i64 first, i64 n, u64* out) {
    EACH(i, n) {
        u32 r = rank[first + i];
        const u32* last = spoken + r; /* the four words before the token, w4 first */
        u64 h = SEED + (u64)mask;
        for (int j = 0; j < FEATURES; j++) {
            if (!(mask >> j & 1)) continue;
            u64 feature = 0;
            if (j < 4) feature = hash[last[3 - j]];
            else if (j == 4) feature = shape[last[0]] << 24 | shape[last[1]] << 16 | shape[last[2]] << 8 | shape[last[3]];
            else if (j == 5) feature = hash[numbers[numbers_before[r]]];
            else if (j == 6) feature = hash[capitals[capitals_before[r]]];
            else if (j == 7) feature = lower[last[3]];
            else if (j == 8) feature = lower[last[2]];
            else if (j == 9) feature = suffix[last[3]];
            else if (j == 10) feature = ending[last[2]] << 16 | ending[last[3]];
            else if (j < 15) feature = small[last[14 - j]];
            else if (j < 17) feature = large[last[18 - j]];
            else feature = topics[first + i];
            h = mix64(h ^ feature);
        }
        out[i] = h >> 24 << 24 | ids[first + i];
    }
}
"""


def source() -> str:
    """The CUDA source of all kernels."""
    defines = "".join(f"#define {name} {int(value)}{'ull' if int(value) >> 31 else ''}\n" for name, value in _CONSTANTS.items())
    return defines + _BODY
