"""Files of token ids: .npy arrays, and the .bin shards of parameter-golf and of modded-nanogpt.

shard     256 int32 (magic 20240520, version 1, how many tokens, the rest 0), then that many uint16; little-endian
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from charstat.errors import CorpusError
from charstat.placing import read_file

MAGIC, VERSION, HEADER = 20240520, 1, 256
MAX_PIECES_BYTES = 1 << 26


def read_ids(path: str | os.PathLike) -> np.ndarray:
    """The ids of a file: of the type that is stored, [n]. CorpusError if it is none, truncated, or cannot be read."""
    path = Path(path)
    try:
        if path.suffix == ".npy":
            ids = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            header = np.fromfile(path, "<i4", HEADER)
            if header.size < HEADER or header[0] != MAGIC:
                raise CorpusError(f"{path} is neither a .npy array nor a shard of tokens: a shard starts with the number {MAGIC}")
            if header[1] != VERSION or header[2] < 0:
                raise CorpusError(
                    f"{path} is a shard of version {header[1]} with {header[2]} tokens; this charstat reads version {VERSION}"
                )
            ids = np.fromfile(path, "<u2", int(header[2]), offset=4 * HEADER)
            if ids.size != header[2] or os.path.getsize(path) != 4 * HEADER + 2 * ids.size:
                raise CorpusError(f"{path} does not have the {header[2]:,} tokens that its header says: it is truncated or foreign")
    except OSError as e:
        raise CorpusError(f"{path} cannot be read: {e.strerror or e}") from e
    except ValueError as e:
        raise CorpusError(f"{path} is no array of ids: {e}") from e
    if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise CorpusError(f"{path} does not hold token ids, whole numbers in one dimension")
    return ids


def write_shard(path: str | os.PathLike, ids: np.ndarray) -> None:
    """Write ids as a shard."""
    header = np.zeros(HEADER, "<i4")
    header[:3] = MAGIC, VERSION, len(ids)
    with open(path, "wb") as f:
        f.write(header.tobytes())
        f.write(np.asarray(ids).astype("<u2").tobytes())


def read_pieces(path: str | os.PathLike) -> list[bytes]:
    """The bytes of every token from a JSON list of them in hexadecimal, ["20", "7468", ...]. CorpusError if it is none."""
    try:
        values = json.loads(read_file(path, MAX_PIECES_BYTES))
        return [bytes.fromhex(value) for value in values]
    except OSError as e:
        raise CorpusError(f"{path} cannot be read: {e.strerror or e}") from e
    except (ValueError, TypeError, RecursionError) as e:
        raise CorpusError(f'{path} is no JSON list of pieces in hexadecimal, such as ["20", "7468"]: {e}') from e
