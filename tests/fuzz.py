"""Hostile trials, by kind: each in a forked child with limits of time and memory, from a seed that repeats it.

    python tests/fuzz.py --minutes 30                 all kinds in turn, counts at the end; status 1 if anything was found
    python tests/fuzz.py --kind coded --trials 1000   so many trials instead of minutes
    python tests/fuzz.py --kind directories --seed 7  one trial again, with what it says

    texts         any text: built, saved, loaded and scored, sum of P = 1, the same bits again
    api           a public call with random arguments
    directories   a model directory with changed columns and right checksums, opened with verify="full", and all models run on it
    manifests     a manifest with a field of another type or value, sealed again; single bits flipped
    traced        a signal at a random source line of a build
    moments       a signal at a random moment of a build; SIGKILL among them
    races         three builds to one place at once, and somebody who puts a file there
    disks         a disk that is full after so many bytes
    coded         any text or bytes: compressed with a model or without and decompressed, in no more bytes than score() says
    damaged       a compressed file with bits flipped, parts cut out, put in or exchanged: refused, and nothing written

A trial returns a word for what happened; Found is raised for what must never happen. tests/test_fuzz.py runs some of each.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import hashlib
import io
import json
import linecache
import math
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

import charstat
from charstat import Alphabet
from charstat import manifest as manifests
from charstat.codec.container import BYTES, Reader
from charstat.codec.files import as_text, choose_source, compress, decompress
from charstat.codec.sources import source_with
from charstat.codec.stream import Encoder
from charstat.counting import build_model
from charstat.errors import CharstatError, FormatError, UserError
from charstat.model import Model
from charstat.registry import MODELS
from charstat.storage import COLUMNS, HEADER_BYTES, npy_header

LIMIT_S, LIMIT_BYTES = 10, 4 << 30
STOPS = (signal.SIGINT, signal.SIGTERM)
PACKAGE = str(Path(charstat.__file__).parent)
TEXT = "the cat sat on the mat, and the rat sat on the cat; 42 Émile's cats — “all” of them — sat.\nNo. 7\n" * 5
OTHER = "Something else entirely was written here, in 1905 or so.\n" * 7
PROBE = "the rat sat on 7 mats ☃ and\n\nSomething els"
PREDICTORS = tuple(MODELS)


class Found(Exception):
    """What must never happen."""


# Children ----------------------------------------------------------------------------------------------------------------


def in_child(work: Callable[[], object], limit_s: float = LIMIT_S, when: Callable[[int], None] | None = None) -> tuple[object, str]:
    """(what the work returned, what it wrote) of a forked child. Found if it crashes, hangs or raises. when(pid): run beside it."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as said:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                for number in STOPS:
                    signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
                os.close(reading)
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
                resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                try:
                    answer = {"value": work()}
                except SystemExit as e:
                    answer = {"value": e.code}
                except BaseException:  # noqa: BLE001 (that is what is looked for)
                    answer = {"error": traceback.format_exc()}
                gc.collect()  # what the end of an interpreter does, which _exit leaves out: what was dropped is removed
                os.write(writing, json.dumps(answer, default=str).encode())
                sys.stdout.flush()
                status = 0
            finally:
                os._exit(status)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        os.close(writing)
        if when is not None:
            when(pid)
        parts, end = [], time.monotonic() + limit_s
        while True:
            ready, _, _ = select.select([reading], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                os.kill(pid, signal.SIGKILL)
                break
            part = os.read(reading, 1 << 16)
            if not part:
                break
            parts.append(part)
        os.close(reading)
        _, status = os.waitpid(pid, 0)
        said.seek(0)
        out = said.read().decode(errors="replace")
    if not ready:
        raise Found(f"hangs: more than {limit_s} s\n{out}")
    if os.WIFSIGNALED(status):
        return -os.WTERMSIG(status), out
    if not parts:
        raise Found(f"died with status {os.WEXITSTATUS(status)}\n{out}")
    answer = json.loads(b"".join(parts))
    if "error" in answer:
        raise Found(answer["error"] + out)
    return answer["value"], out


def sane(value: object, out: str) -> object:
    if isinstance(value, int) and value < 0:
        raise Found(f"crashes: {signal.Signals(-value).name}\n{out}")
    return value


def command(*args: str) -> Callable[[], object]:
    def work() -> object:
        from charstat.cli import main

        sys.argv = ["charstat", *map(str, args)]
        main()
        return 0

    return work


def checksums(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir()) if p.is_file()}


# The world ---------------------------------------------------------------------------------------------------------------


class World:
    """Small models that all trials start from; kernels are compiled or loaded once, before anything is forked."""

    def __init__(self, folder: Path):
        import charstat.warm_up

        charstat.warm_up.WARM_WORDS = 64  # the command warms up in every run: on a small text, a trial takes milliseconds
        self.folder = folder
        self.models = []
        made = (
            ("wide", 4, ("mix", "ctw")),
            ("chars", 11, ("ctw",)),
            ("p,p.w1,o2,o0", 2, ("mix",)),
            ("p,p.k1.K2,p.topic,o0,o3", 3, ("mix",)),
        )
        for i, (contexts, order, models) in enumerate(made):
            path = folder / f"model{i}"
            build_model(TEXT, contexts=contexts, order=order, models=models, held_out_chars=60 * (i < 1), threads=1, out=path)
            self.models.append(path)
            exercise(Model.load(path))
        decompress(compress(TEXT.encode()).data)
        (folder / "text.txt").write_text(TEXT, encoding="utf-8")
        (folder / "other.txt").write_text(OTHER, encoding="utf-8")
        self.args = ("--contexts", "words", "--order", "3", "--threads", "1", "--backend", "cpu", "--json")
        out, said = in_child(command("build", "--data", folder / "text.txt", "--out", folder / "earlier", *self.args), 300)
        assert out == 0, said

    def duplicate(self, source: Path, name: str) -> Path:
        target = self.folder / name
        shutil.rmtree(target, ignore_errors=True)
        return Path(shutil.copytree(source, target))


def exercise(model: Model) -> str:
    """Run everything on a model: all predictors, masses that add up, save and merge. Found for wrong numbers; UserError passes."""
    refused = 0
    for name in PREDICTORS:
        try:
            stream = model.char_model(name)
            stream.reset()
        except UserError:
            refused += 1
            continue
        bits = stream.score(PROBE)
        rows = np.array([stream.probabilities()])
        if hasattr(stream, "distributions"):  # a mixture with experts has none
            rows = np.concatenate([rows, stream.distributions(PROBE[:5])])
        listed = math.fsum(stream.predict().values()) + stream.unlisted_mass
        if not (np.isfinite(bits).all() and (bits >= 0).all() and (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1.0, atol=1e-6)):
            raise Found(f"{name}: bits {bits.min()} .. {bits.max()}, masses {rows.sum(axis=1)}")
        if not abs(listed - 1.0) < 1e-6:
            raise Found(f"{name}: listed and unlisted add up to {listed}")
        stream.predict_char()
    return f"opened, {refused} refused" if refused else "opened"


# Kinds -------------------------------------------------------------------------------------------------------------------


def texts(world: World, rng: random.Random) -> str:
    alphabets = ["ab", "a \n", "é–🐝x ", "".join(map(chr, range(32, 300))), "\ud800\x00z ", "ABC abc 123.,\n", "aA1 \u0301\u200d"]
    text = "".join(rng.choices(rng.choice(alphabets), k=rng.choice([1, 2, 3, 10, 100, 3000])))
    if rng.random() < 0.3:
        text = "".join(chr(c) for c in (rng.randrange(0x110000) for _ in range(rng.randrange(1, 400))))
    options = {"order": rng.randrange(1, 25), "contexts": rng.choice(["default", "wide", "chars", "words", "o0", "p", "s1.2,c3"])}
    path = world.folder / "texts"

    def work() -> str:
        try:
            model = build_model(text, threads=rng.choice([1, 2]), held_out_chars=rng.choice([0, 0, len(text) // 3]), **options)
        except UserError:
            return "refused"
        saved = model.save(path)
        loaded = Model.load(path)
        scores = []
        for m in (model, saved, loaded):
            stream = m.stream()
            stream.reset()
            scores.append(stream.score(text[:300] + PROBE).tolist())
        if scores[0] != scores[1] or scores[1] != scores[2]:
            raise Found("other bits after saving")
        return exercise(loaded)

    return str(sane(*in_child(work, 30)))


NASTY = [
    None, True, False, 0, 1, -1, 2, 3, 127, 128, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e308, math.nan, math.inf, 1j, "", "a", "ab",
    "é", "\ud800", "戦" * 3, "a\0b", "o1", "o1,p", "wide", "p.w1", "mix", "ctw", b"", b"abc", bytearray(b"x"), [], ["o1"], ["mix", "ppm"], [None],
    [1, 2], (), ("o0",), {}, {"a": 1}, set(), object(), range(3), iter(["a"]),
    np.zeros(128), np.zeros(127), np.zeros((3, 128)), np.zeros((1, 128), np.float32), np.zeros(128, np.int32), np.zeros((128, 2))[:, 0],
    np.full((1, 128), 1e308), np.full(128, np.nan), np.array("x"), np.float64(2.5), np.int64(3), np.array([]), np.zeros((0, 128)), "x" * 5000,
]  # fmt: skip


def api(world: World, rng: random.Random) -> str:
    """A run of calls on one model, each with random arguments. Exceptions that are charstat's own words pass, others are found."""

    class Mine(Exception):
        pass

    def mine(*args: object) -> None:
        raise Mine

    def any_of(*good: object) -> object:
        return rng.choice(good) if good and rng.random() < 0.5 else rng.choice([*NASTY, mine])

    def said_by_us(e: BaseException) -> bool:
        """Whether the exception was raised on purpose by a line of the package (or by the caller's own callback)."""
        if isinstance(e, CharstatError | Mine | KeyboardInterrupt):
            return True
        frames = traceback.extract_tb(e.__traceback__)
        if isinstance(e, TypeError) and len(frames) == 1 and "argument" in str(e):
            return True  # Python's own words about a call that has no such parameter
        last = frames[-1]
        lines = "".join(linecache.getline(last.filename, n) for n in range(max(1, last.lineno - 1), last.lineno + 1))
        return isinstance(e, ValueError | TypeError | RuntimeError) and last.filename.startswith(PACKAGE) and "raise " in lines

    def work() -> str:
        model = Model.load(rng.choice(world.models), verify="fast")
        stream = model.char_model(rng.choice(PREDICTORS) if "o0" in model.tables else "mix")
        stream.reset()
        os.chdir(world.folder)
        corpus = charstat.open_corpus(world.folder / "text.txt")
        alphabet = model.alphabet

        def options(**names: tuple) -> dict:
            return {k: any_of(*v) for k, v in names.items() if rng.random() < 0.35}

        def flag() -> object:
            return rng.choice([True, False, None, 0, 1, "x", 0.5])

        def small_build() -> object:
            return charstat.build_model(
                any_of(TEXT[:80], "a"), **options(
                    order=(1, 3), contexts=("o0", ["o1", "p"]), models=("mix", ["ctw"]), classes=(None,), held_out_chars=(0, 10), history=("", "ab"), alphabet=(alphabet,),
                    backend=("cpu", "auto"), threads=(1, 2), memory_bytes=(10**7,), data=({"name": "x"},), progress=(print, None),
                    out=(world.folder / "api",),
                ),
            )  # fmt: skip

        calls = {
            "build_model": small_build,
            "from_text": lambda: charstat.Alphabet.from_text(any_of("abc"), **options(threads=(1,), end=(2,))),
            "encode": lambda: alphabet.encode(any_of("abc")),
            "rare_probability": lambda: alphabet.rare_probability(any_of("☃", "戦")),
            "open_corpus": lambda: charstat.open_corpus(any_of("sample", world.folder / "text.txt")),
            "text": lambda: corpus.text(any_of("train", "val"), any_of(5, None), any_of(None, print)),
            "load": lambda: Model.load(any_of(world.models[0], world.models[1]), any_of("full", "fast", True)),
            "merge": lambda: Model.merge(any_of(model), any_of(model)),
            "save": lambda: model.save(any_of(world.folder / "api")),
            "char_model": lambda: model.char_model(any_of("ppm", "ctw", None)),
            "stream": lambda: model.stream(
                match=flag(), warm_start=flag(), **options(contexts=(["o1"], None), experts=(0, 1), overlay_limit=(10**5,), rates=(None,))
            ),
            "score": lambda: stream.score(any_of(PROBE, "")),
            "guess_and_score": lambda: stream.guess_and_score(any_of(PROBE)),
            "distributions": lambda: stream.distributions(any_of("abc"), **options(out=(np.zeros((3, 128)),))),
            "probabilities": lambda: stream.probabilities(*([any_of(np.zeros(128))] if rng.random() < 0.8 else [])),
            "log_probs": lambda: stream.log_probs(*([any_of(np.zeros(128))] if rng.random() < 0.8 else [])),
            "probability": lambda: stream.probability(any_of("a", "戦")),
            "fork": lambda: (stream.fork(), copy.copy(stream)),
            "advise": lambda: stream.advise(any_of(np.zeros((0, 128)))),
            "observe": lambda: stream.observe(any_of("a", "戦")),
            "predict": lambda: (stream.predict(), stream.predict_char()),
            "reset": lambda: stream.reset(rng.choice([True, False])),
            "evaluate": lambda: charstat.evaluate(any_of(stream), any_of(PROBE), any_of(None, print)),
            "select_contexts": lambda: charstat.select_contexts(any_of("wide", ["o1"]), any_of(8, 3)),
        }
        for name in ("distributions", "probability", "advise", "log_probs"):
            if not hasattr(stream, name):  # a mixture with experts
                del calls[name]
        for _ in range(api.calls):
            name = rng.choice(list(calls))
            try:
                calls[name]()
            except BaseException as e:
                if not said_by_us(e):
                    raise Found(f"{name}: {type(e).__name__} from inside: {e}") from e
        return exercise(Model.load(world.models[0], verify="fast"))

    return str(sane(*in_child(work, 60)))


api.calls = 50


def mutate(values: np.ndarray, rng: random.Random) -> np.ndarray:
    """The column, changed in one of the ways that a hostile hand would think of."""
    new = values.copy()
    info = np.iinfo(new.dtype) if new.dtype.kind in "iu" else None
    extremes = [0, -1, 1e30, -1e30, np.nan, np.inf, 1e-38]
    if info:
        extremes = [v for v in (0, 1, 2, 127, 128, 255, 1 << 16, info.max, info.max - 1, info.max // 2, info.min) if v <= info.max]
    n = new.size
    if n == 0:
        return np.full(rng.randrange(1, 5), rng.choice(extremes), new.dtype)
    a, b = sorted((rng.randrange(n), rng.randrange(1, n + 1)))
    way = rng.randrange(12)
    if way == 0:
        new[:] = rng.choice(extremes)
    elif way == 1:
        new[rng.randrange(n)] = rng.choice(extremes)
    elif way == 2:
        new[a:b] = rng.choice(extremes)
    elif way == 3:
        new[a:b] = new[a:b][::-1]
    elif way == 4:
        bits = new.view(f"u{new.itemsize}")
        bits[rng.randrange(n)] ^= bits.dtype.type(1 << rng.randrange(8 * new.itemsize))
    elif way == 5 and info:
        i = rng.randrange(n)
        new[i] = (int(new[i]) + rng.choice([1, -1])) & info.max
    elif way == 6:
        new = np.roll(new, rng.choice([1, -1, 7]))
    elif way == 7 and info:
        new[:] = np.frombuffer(rng.randbytes(new.nbytes), new.dtype)
    elif way == 8 and info:
        new[a:b] = np.frombuffer(rng.randbytes(new[a:b].nbytes), new.dtype)
    elif way == 9:
        new.sort()
    elif way == 10:
        new[a:b] = new[rng.randrange(n)]
    else:
        i, j = rng.randrange(n), rng.randrange(n)
        new[i], new[j] = new[j], new[i]
    return new


def write_column(folder: Path, name: str, values: np.ndarray, about: dict) -> None:
    dtype = np.dtype(COLUMNS[name])
    (folder / f"{name}.npy").write_bytes(npy_header(dtype, values.size) + values.tobytes())
    about["arrays"][name] |= {"size": int(values.size), "sha256": hashlib.sha256(values.tobytes()).hexdigest()}


def open_all(folder: Path) -> Callable[[], str]:
    def work() -> str:
        try:
            model = Model.load(folder, verify="full")
        except FormatError as e:
            assert "\n" not in str(e)
            return "refused"
        from charstat.facts import model_facts
        from charstat.report import show_model

        with contextlib.redirect_stdout(io.StringIO()):
            show_model(model_facts(model) | {"checked": True}, False)
            show_model(model_facts(model) | {"checked": True}, True)
        how = exercise(model)
        model.save(folder.with_name("saved"))
        with contextlib.suppress(UserError):
            Model.merge(model, model)
        return how

    return work


def directories(world: World, rng: random.Random) -> str:
    folder = world.duplicate(rng.choice(world.models), "directories")
    about = json.loads((folder / "manifest.json").read_text())
    for _ in range(rng.choice([1, 1, 1, 2])):
        name = rng.choice(list(COLUMNS))
        values = np.fromfile(folder / f"{name}.npy", COLUMNS[name], offset=HEADER_BYTES)
        parts = [(e[at], n) for e in about["tables"].values() for at, n in place_of(name, e)]
        if parts and rng.random() < 0.6:  # one table of it
            at, n = rng.choice(parts)
            values[at : at + n] = mutate(values[at : at + n], rng)[:n]
        else:
            values = mutate(values, rng)
        write_column(folder, name, values, about)
    (folder / "manifest.json").write_bytes(manifests.seal(about))
    return str(sane(*in_child(open_all(folder))))


def place_of(column: str, entry: dict) -> list[tuple[str, int]]:
    return {
        "buckets": [("bucket_at", (1 << entry["bits"]) + 1)], "records": [("record_at", entry["contexts"] + 1)],
        "rows": [("row_at", entry["rows"])], "sums": [("sum_at", entry["rows"] + 1)] if entry["sum_at"] else [],
    }.get(column, [])  # fmt: skip


JSON_VALUES = [
    None, True, False, 0, 1, -1, 3, 57, 1 << 32, 1 << 64, 0.5, -1.0, 1e300, "", "x", "7", "戦", "a" * 70_000, [], [[]], [1], [0, 1], ["a"], {}, {"a": 1},
]  # fmt: skip


def manifests_kind(world: World, rng: random.Random) -> str:
    folder = world.duplicate(rng.choice(world.models), "manifests")
    file = folder / "manifest.json"
    data = bytearray(file.read_bytes())
    if rng.random() < 0.2:
        at = rng.randrange(len(data))
        data[at] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        outcome = sane(*in_child(open_all(folder)))
        if outcome != "refused":
            raise Found(f"a flipped bit at {at} goes unnoticed")
        return "bit refused"
    about = json.loads(data)
    if rng.random() < 0.1:
        raw = rng.choice([b"[" * 200_000, b'{"a":' * 100_000, b"", b"null", b"\xff", b"9" * 10_000, b'"' + b"x" * 10**6])
        field = manifests.seal(about).replace(b'"words": ', b'"words": ' + raw, 1)
        file.write_bytes(rng.choice([raw, field]))
        return str(sane(*in_child(open_all(folder))))
    spots: list[tuple[object, object]] = []

    def walk(value: object) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            spots.append((value, key))
            walk(value[key])

    walk({k: v for k, v in about.items() if k != "arrays"})
    spots += [(about, key) for key in about] + [(about["arrays"], key) for key in about["arrays"]]
    for _ in range(rng.choice([1, 1, 2])):
        parent, key = rng.choice(spots)
        way = rng.random()
        if way < 0.65:
            new = rng.choice(JSON_VALUES)
            parent[key] = rng.choice([parent.get(key, 0) if isinstance(parent, dict) else 0, 0]) + 1 if new == 1 and type(new) is int and isinstance(
                parent.get(key) if isinstance(parent, dict) else None, int) else new  # fmt: skip
        elif way < 0.8 and isinstance(parent, dict):
            parent.pop(key, None)
        elif isinstance(parent, dict) and key in parent:
            renamed = rng.choice(["o5", "pfoo.w1", "o05", "x", "p.w1.w1", key + "x", "sha256", ""])
            parent[renamed] = parent[key] if rng.random() < 0.5 else parent.pop(key)
    file.write_bytes(manifests.seal(about))
    return str(sane(*in_child(open_all(folder))))


def after_stop(world: World, out: Path, before: dict, status: object, said: str) -> str:
    """What a stopped build must leave behind: the earlier model or the new one, nothing else, and words that say which."""
    if "Traceback" in said:
        raise Found(f"a traceback\n{said}")
    left = sorted(p.name for p in out.parent.iterdir())
    if left != [out.name]:
        raise Found(f"leftovers {left}, status {status}\n{said}")
    replaced = checksums(out) != before
    Model.load(out)
    if status == 130 and replaced != ("was written, and is complete" in said):
        raise Found(f"{'replaced' if replaced else 'not replaced'}, but it says {said}")
    if status in (-signal.SIGINT, -signal.SIGTERM) and not replaced and not said:
        return "ended before it could say anything"
    if status not in (0, 130, 143):
        raise Found(f"status {status}\n{said}")
    return {0: "finished", 130: "interrupted", 143: "terminated"}[status] + (", replaced" if replaced else "")


def stage(world: World, name: str) -> Path:
    shutil.rmtree(world.folder / name, ignore_errors=True)
    return Path(shutil.copytree(world.folder / "earlier", world.folder / name / "m"))


def traced(world: World, rng: random.Random) -> str:
    """At the n-th line that a build runs in charstat's files, a signal."""
    out = stage(world, "traced")
    before = checksums(out)
    number = rng.choice([signal.SIGINT, signal.SIGINT, signal.SIGTERM])
    if not hasattr(world, "lines"):
        world.lines = int(in_child(lambda: traced_build(world, out, 0, None), 60)[0])
        out = stage(world, "traced")
    n = rng.randrange(1, world.lines)
    status, said = in_child(lambda: traced_build(world, out, n, number), 60)
    return after_stop(world, out, before, status, said)


def traced_build(world: World, out: Path, n: int, number: int | None) -> object:
    lines = 0

    def trace(frame, event, arg):
        nonlocal lines
        if not frame.f_code.co_filename.startswith(PACKAGE) or "energy.py" in frame.f_code.co_filename:
            return None
        if event == "line":
            lines += 1
            if lines == n:
                os.kill(os.getpid(), number)
        return trace

    work = command("build", "--data", world.folder / "other.txt", "--out", out, *world.args)
    sys.settrace(trace)
    try:
        status = work()
    except SystemExit as e:
        status = e.code
    finally:
        sys.settrace(None)
    return lines if number is None else status


def moments(world: World, rng: random.Random) -> str:
    """A signal after a random time; after SIGKILL, the next build clears up."""
    out = stage(world, "moments")
    before = checksums(out)
    number = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    delay = rng.random() * 0.15

    def when(pid: int) -> None:
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    status, said = in_child(command("build", "--data", world.folder / "other.txt", "--out", out, *world.args), 30, when)
    if number == signal.SIGKILL:
        Model.load(out)
        in_child(command("build", "--data", world.folder / "text.txt", "--out", out, *world.args), 30)
        left = sorted(p.name for p in out.parent.iterdir())
        if left != [out.name]:
            raise Found(f"leftovers {left} after the next build")
        return "killed"
    return after_stop(world, out, before, status, said)


def races(world: World, rng: random.Random) -> str:
    """Three builds to one place, of different texts; each must report its own. In some rounds somebody puts a file there."""
    shutil.rmtree(world.folder / "races", ignore_errors=True)
    (world.folder / "races").mkdir()
    out = world.folder / "races" / "m"
    foreign = rng.random() < 0.3
    texts = ["abc " * (20 + i) + str(rng.random()) for i in range(3)]

    def work(i: int) -> Callable[[], object]:
        def build() -> object:
            for _ in range(3):
                try:
                    model = build_model(texts[i], order=1 + i, contexts="chars", threads=1, backend="cpu", out=out)
                except UserError as e:
                    if not foreign:
                        raise
                    assert "did not write" in str(e) or "other files" in str(e), e
                    continue
                if model.manifest["text"]["chars"] != len(texts[i]) or model.order != 1 + i:
                    raise Found("another's facts")
                Model.load(out)
            return i

        return build

    def others(pid: int) -> None:
        children = [fork_off(work(i)) for i in (1, 2)]
        if foreign:
            time.sleep(rng.random() * 0.02)
            with contextlib.suppress(OSError):
                out.mkdir(exist_ok=True)
                (out / "notes.txt").write_text("mine")
                others.written = True
        others.status = [os.waitpid(child, 0)[1] for child in children]

    others.written = False
    sane(*in_child(work(0), 30, others))
    if any(others.status):
        raise Found(f"another build ended with {others.status}")
    if others.written and (not (out / "notes.txt").exists() or (out / "notes.txt").read_text() != "mine"):
        raise Found("a file that charstat did not write is lost")
    left = sorted(p.name for p in out.parent.iterdir())
    if left != ["m"]:
        raise Found(f"leftovers {left}")
    if not others.written:
        Model.load(out)
    return "with a file of somebody" if others.written else "three builds"


def fork_off(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 (told to the parent by the status)
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def disks(world: World, rng: random.Random) -> str:
    """A limit on the size of files, or a small file system where one can be mounted."""
    out = stage(world, "disks")
    before = checksums(out)
    size = max(p.stat().st_size for p in out.iterdir())
    limit = rng.randrange(int(1.3 * size))

    def work() -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        return command("build", "--data", world.folder / "text.txt", "--out", out, *world.args)()

    mounted = rng.random() < 0.5 and mount(out.parent, rng.randrange(1, 3 * size))
    try:
        if mounted:
            target = out.parent / "m"
            status, said = in_child(command("build", "--data", world.folder / "text.txt", "--out", target, *world.args), 30)
            left = sorted(p.name for p in out.parent.iterdir())
            if left != (["m"] if status == 0 else []):
                raise Found(f"leftovers {left}, status {status}: {said}")
        else:
            status, said = in_child(work, 30)
    finally:
        if mounted:
            subprocess.run(["umount", out.parent], check=True)
    if "Traceback" in said or status not in (0, 2) or (status == 2 and "unchanged" not in said and "cannot write" not in said):
        raise Found(f"status {status}: {said}")
    if not mounted and status == 2 and (checksums(out) != before or sorted(p.name for p in out.parent.iterdir()) != ["m"]):
        raise Found("the earlier model is harmed")
    return ("a small disk" if mounted else "a limit") + (", fits" if status == 0 else ", full")


def mount(place: Path, n_bytes: int) -> bool:
    how = ["mount", "-t", "tmpfs", "-o", f"size={max(4096, n_bytes)}", "tmpfs", place]
    return os.geteuid() == 0 and shutil.which("mount") and subprocess.run(how, check=False, capture_output=True).returncode == 0


def anything(rng: random.Random) -> bytes:
    """A file: text of a few or of many characters, other encodings, noise, repetitions, a piece of the interpreter."""
    size = rng.choice([0, 1, 2, 10, 100, 1000, 4000])
    alphabet = rng.choice(["ab", "a \n", "é–🐝x ", "".join(map(chr, range(32, 300))), "ABC abc 123.,\n\r\0", "戦争\u0301 "])
    text = "".join(rng.choices(alphabet, k=size))
    way = rng.randrange(6)
    if way == 0:
        return rng.randbytes(size)
    if way == 1:
        return (text[:7] or "x").encode() * (size // 5)
    if way == 2:
        return text.encode("utf-16-le")
    if way == 3:
        with open(sys.executable, "rb") as f:
            f.seek(rng.randrange(1 << 20))
            return f.read(size)
    return (TEXT * 9)[:size].encode() if way == 4 else text.encode()


def chosen_model(world: World, rng: random.Random) -> Model | None:
    return None if rng.random() < 0.5 else Model.load(rng.choice(world.models), verify="fast")


def coded(world: World, rng: random.Random) -> str:
    data, order, as_characters = anything(rng), rng.choice([None, 1, 3, 24]), rng.random() < 0.6

    def work() -> str:
        model = chosen_model(world, rng)
        if model is None and data and as_characters:  # short files would hardly ever be taken as text
            encoder = Encoder(alphabet=Alphabet.from_text(as_text(data)), order=order)
            if decompress(encoder.encode(as_text(data)) + encoder.finish()) != data:
                raise Found("another text comes back")
            return "text"
        packed = compress(data, model, order if model is None else None)
        if decompress(packed.data, model) != data:
            raise Found("another file comes back")
        if model is not None:
            stream = model.stream()
            stream.reset()
            reader = Reader()
            reader.feed(packed.data)
            reader.header()
            header_bytes, price_bytes = len(packed.data) - len(reader._bytes), stream.score(as_text(data)).sum() / 8
            if len(packed.data) > 1.001 * price_bytes + 64 + header_bytes:
                raise Found(f"{len(packed.data)} bytes, where score() says {price_bytes:.1f} and the header has {header_bytes}")
        return packed.mode

    return str(sane(*in_child(work, 60)))


def damaged(world: World, rng: random.Random) -> str:
    import charstat.cli  # noqa: F401 (once: what a child imports is lost with it)

    place = world.folder / "damaged"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    path = rng.choice([None, *world.models])
    data = anything(rng)
    source = source_with(Model.load(path, verify="fast")) if path else choose_source(data)
    encoder = Encoder.on(source, block_chars=rng.choice([7, 100, 1 << 12]))
    packed = encoder.encode(data if source.mode == BYTES else as_text(data)) + encoder.finish()
    broken = bytearray(packed)
    for _ in range(rng.choice([1, 1, 1, 5])):
        a, b = sorted((rng.randrange(len(broken) + 1), rng.randrange(len(broken) + 1)))
        way = rng.randrange(7)
        if way == 0 and broken:
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        elif way == 1:
            del broken[a:]
        elif way == 2:
            broken[a:a] = rng.randbytes(rng.randrange(1, 20))
        elif way == 3:
            del broken[a:b]
        elif way == 4:
            broken[a:b] = rng.randbytes(b - a)
        elif way == 5:
            broken[a:a] = broken[a:b]
        else:
            c = rng.randrange(b, len(broken) + 1)
            broken[a:c] = broken[b:c] + broken[a:b]
    (place / "f.cst").write_bytes(broken)
    model = ["--model", path] if path else []
    status, said = in_child(command("decompress", place / "f.cst", "-o", place / "f", *model), 60)
    left = sorted(p.name for p in place.iterdir())
    if status == 0 and (place / "f").read_bytes() == data:
        return "the same again"  # a change that was undone, or none
    if status != 2 or left != ["f.cst"] or "Traceback" in said or not said.startswith("error: "):
        raise Found(f"status {status}, left {left}: {said}")
    return "refused"


KINDS: dict[str, Callable[[World, random.Random], str]] = {
    "texts": texts, "api": api, "directories": directories, "manifests": manifests_kind, "traced": traced, "moments": moments, "races": races,
    "disks": disks, "coded": coded, "damaged": damaged,
}  # fmt: skip


SHARES = {"api": 3, "directories": 3, "manifests": 2, "traced": 3}  # of the time; 1 for the others


def run(kind: str, world: World, seed: int) -> str:
    """One trial. Found, with the seed, for what must never happen."""
    try:
        return KINDS[kind](world, random.Random(f"{kind} {seed}"))
    except Exception as e:
        raise Found(f"{kind}, seed {seed}: {e}") from e


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--trials", type=int, help="so many of each kind, however long they take")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--seed", type=int, help="run this one trial of --kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    args = parser.parse_args()
    kinds = args.kind or list(KINDS)
    counts, found = {kind: Counter() for kind in kinds}, []
    with tempfile.TemporaryDirectory(prefix="charstat-fuzz-") as folder:
        world = World(Path(folder))
        if args.seed is not None:
            for kind in kinds:
                print(kind, run(kind, world, args.seed))
            return
        for kind in kinds:
            share = SHARES.get(kind, 1) / sum(SHARES.get(k, 1) for k in kinds)
            end, seed = time.monotonic() + 60 * args.minutes * share, args.first
            while seed < args.first + args.trials if args.trials else time.monotonic() < end:
                try:
                    counts[kind][run(kind, world, seed)] += 1
                except Found as e:
                    counts[kind]["FOUND"] += 1
                    found.append(str(e))
                    print(e, flush=True)
                seed += 1
            print(f"{kind}: {sum(counts[kind].values()):,} trials; {dict(counts[kind].most_common())}", flush=True)
    print(json.dumps({"trials": {k: sum(c.values()) for k, c in counts.items()}, "found": len(found)}))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
