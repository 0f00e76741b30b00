"""Counting a shard: its text and its history, with the whole text's alphabet, into a model directory of its own.

A shard's directory is an ordinary model: sorted tables, whose buckets say where a range of identities begins, and checksums. What it counts
are the characters and words of its text alone; the history is context.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from charstat.alphabet import Alphabet
from charstat.counting import choose_backend
from charstat.cpu.backend import CPUBackend
from charstat.errors import FormatError
from charstat.model import ModelWriter
from charstat.ngram.contexts import Context, parse_context
from charstat.ngram.words import SymbolInfo, model_symbol_info
from charstat.shards.classes import TopicState, count_words, open_classes, survey_words
from charstat.shards.energy import phase_list
from charstat.shards.files import digest_of, finished, shard_name, write_file
from charstat.shards.history import summary
from charstat.shards.scan import Span, span_text
from charstat.storage import DirectoryColumns, check_sums, open_model


@dataclass(frozen=True)
class Job:
    """What all tasks of a build know: kept in the work directory, so that no worker has to hold it for the others.

    key: of the text, the alphabet and the contexts. backend, threads, memory_bytes: as in counting.choose_backend. min_count: what the model is
    cut to.
    """

    key: str
    alphabet: dict
    contexts: list[str]
    backend: str
    threads: int
    memory_bytes: int
    min_count: int = 1

    def store(self, folder: Path) -> str:
        """Write it there; returns the name to open it by."""
        name = f"{self.key[:16]}-{digest_of(asdict(self))[:8]}.job"
        write_file(folder / name, [json.dumps(asdict(self)).encode()], self.key, dict)
        return name


@dataclass(frozen=True)
class OpenJob:
    """A job as a task uses it."""

    key: str
    alphabet: Alphabet
    contexts: tuple[Context, ...]
    info: SymbolInfo
    backend: str
    threads: int
    memory_bytes: int
    min_count: int


@lru_cache(maxsize=2)
def open_job(folder: Path, name: str) -> OpenJob:
    job = Job(**json.loads((folder / name).read_bytes()))
    alphabet = Alphabet.from_dict(job.alphabet)
    contexts = tuple(parse_context(name) for name in job.contexts)
    return OpenJob(job.key, alphabet, contexts, model_symbol_info(alphabet), job.backend, job.threads, job.memory_bytes, job.min_count)


def summarize(folder: Path, name: str, number: int, shard: list[Span]) -> bytes:
    """The summary of a shard (history.py), as symbols."""
    job = open_job(folder, name)
    path, key = folder / f"shard-{number:06}.history", digest_of([job.key, shard])
    done = finished(path, key)
    if done is not None:
        return bytes.fromhex(done)
    symbols = np.empty(0, np.uint8)
    for span in shard:
        symbols = summary(np.concatenate([symbols, job.alphabet.encode(span_text(folder, span), 1)]), job.info)
    write_file(path, [symbols], key, lambda: symbols.tobytes().hex())
    return symbols.tobytes()


def count_shard(
    folder: Path, name: str, number: int, shard: list[Span], history: bytes, learned: tuple[str, list[int], bytes] | None = None
) -> dict:
    """Count a shard, unless that is done already. Returns what the build must know of it:

    {"tables": the manifest's, "words": ..., "chars": ..., "backend": ..., "device": ..., "reason": ..., "notes": [...], "phases": [...]}

    learned: where contexts look at word classes, (their file, its sizes, the topic's state at the shard's start).
    """
    job = open_job(folder, name)
    path = folder / shard_name(number)
    key = digest_of([job.key, shard, history.hex(), None if learned is None else [learned[1], learned[2].hex()]])
    found = _counted(path, key)
    if found is not None:
        return found
    symbols = shard_symbols(folder, job, shard, history)
    engine, why = choose_backend(job.backend, job.threads, job.memory_bytes, symbols.size)
    columns = DirectoryColumns(path)
    try:
        writer, timer = ModelWriter(columns), Phases()
        contexts = tuple(c for c in job.contexts if not c.is_words) if learned else job.contexts
        for part in engine.count(symbols, len(history), contexts, job.info, timer.phase):
            writer.add(part)
        if learned:
            words = tuple(c for c in job.contexts if c.is_words)
            counter = CPUBackend(job.threads, getattr(engine, "budget_bytes", None))
            with timer.phase("words"):
                known, state = open_classes(folder / learned[0], learned[1]), TopicState.opened(learned[2])
                for part in count_words(counter, symbols, len(history), words, job.info, known, state):
                    writer.add(part)
        about = {
            "backend": engine.name, "device": engine.device, "reason": why, "notes": list(getattr(engine, "notes", [])), "phases": timer.phases(),
        }  # fmt: skip
        writer.finish(job.alphabet, job.contexts, {"text": {"chars": symbols.size - len(history)}, "data": {"key": key}, "build": about})
    finally:
        columns.discard()
    return _facts(open_model(path)[0])


def shard_symbols(folder: Path, job: OpenJob, shard: list[Span], history: bytes) -> np.ndarray:
    """The symbols of a shard, after those of its history: uint8."""
    chars = sum(span.chars for span in shard)
    symbols = np.empty(len(history) + chars, np.uint8)
    symbols[: len(history)] = np.frombuffer(history, np.uint8)
    at = len(history)
    for span in shard:
        symbols[at : at + span.chars] = job.alphabet.encode(span_text(folder, span), job.threads)
        at += span.chars
    return symbols


def survey_shard(folder: Path, name: str, number: int, shard: list[Span], history: bytes) -> list[int]:
    """What learning word classes needs of a shard, in a file: see classes.survey_words."""
    job = open_job(folder, name)
    path, key = survey_path(folder, number), digest_of([job.key, shard, history.hex(), "survey"])
    return survey_words(path, key, lambda: (shard_symbols(folder, job, shard, history), len(history)), job.info)


def survey_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:06}.survey"


class Phases:
    """Seconds of each phase of the counting; joules are measured for a whole host (cluster.py)."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str):
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - started

    def phases(self) -> list[dict]:
        return phase_list(self._seconds)


def _facts(manifest: dict) -> dict:
    return {"tables": manifest["tables"], "words": manifest["words"], "chars": manifest["text"]["chars"], **manifest["build"]}


def _counted(path: Path, key: str) -> dict | None:
    """The facts of a shard that is there, whole, and of this key."""
    if not os.path.isdir(path):
        return None
    try:
        manifest, columns = open_model(path)
        if (manifest.get("data") or {}).get("key") != key:
            return None
        check_sums(path, manifest, columns)
    except FormatError:
        return None
    return _facts(manifest)
