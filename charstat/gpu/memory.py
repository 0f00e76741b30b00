"""The device memory planner: does a sort run in one piece, or in several, each with a range of key values?

A piece has all keys whose top bits lie in a range. For every piece, the text is passed over again, and the piece's keys are sorted and
reduced to runs. The runs of consecutive pieces are consecutive, so nothing has to be merged.

    free 20 GB, 540 M keys of 44 bytes     one piece would take 23.8 GB of 18 usable: pieces of at most 307 M keys, 2 of them
"""

from __future__ import annotations

from dataclasses import dataclass

USABLE = 0.9  # of the free memory: pools round up, and CuPy's scans need a little
KEY_BYTES = 44  # the most that a key takes, if none repeats (measured): its run's position, key, count, row, identity, record
CHUNK_BYTES = 64  # a position of a chunk: its key, its top bits, the flags and indices that pick it
MAX_PIECES = 64  # passes over the text; a device that needs more is too small for it
LEAST_CHUNK = 1 << 10

# What a counted character takes beside the sorts: the symbol; its share of a token's edge, id, rank and features; its share of a
# distinct 9-gram and of the layout of their table (85 bytes each, measured; one in four or five is distinct in a long text).
HELD_BYTES_PER_CHAR = 24
FIXED_BYTES = 256 << 20  # the CUDA context's growth, modules, small tables


@dataclass(frozen=True)
class Plan:
    """How to sort n keys: pieces of at most `piece` keys, filled from chunks of `chunk` positions."""

    n: int
    piece: int
    chunk: int

    @property
    def whole(self) -> bool:
        return self.piece >= self.n

    def smaller(self) -> Plan | None:
        """The plan to try after running out of memory; None if there is none."""
        piece = min(self.piece, self.n) // 2
        if piece * MAX_PIECES < self.n or piece == 0:
            return None
        return Plan(self.n, piece, max(LEAST_CHUNK, min(self.chunk, self.n) // 2))


def plan_sort(n: int, free_bytes: int | None, chunk: int, key_bytes: int = KEY_BYTES) -> Plan | None:
    """The plan for n keys in free_bytes of device memory (None: unlimited), None if it would take too many pieces."""
    if free_bytes is None or n * key_bytes <= free_bytes * USABLE:
        return Plan(n, n, max(1, min(n, chunk)))
    chunk = max(LEAST_CHUNK, min(n, chunk, int(free_bytes * USABLE / 4) // CHUNK_BYTES))
    piece = int(free_bytes * USABLE * 3 / 4) // key_bytes
    return None if piece * MAX_PIECES < n or piece <= 0 else Plan(n, piece, chunk)


def chunk_size(n: int, free_bytes: int | None, chunk: int, key_bytes: int = KEY_BYTES) -> int:
    """How many of n keys to sort and reduce at once if the parts are merged afterwards: at most half of the free memory."""
    if free_bytes is not None:
        chunk = min(chunk, max(LEAST_CHUNK, int(free_bytes * USABLE / 2) // key_bytes))
    return max(1, min(n, chunk))


def least_bytes(chars: int) -> int:
    """The least device memory with which counting so many characters is worth starting."""
    return FIXED_BYTES + HELD_BYTES_PER_CHAR * chars + chars * KEY_BYTES // MAX_PIECES
