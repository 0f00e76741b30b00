"""charstat/shards: a text in shards, counted on dask workers, is the model of the whole text, in every array; whatever is lost on the way."""

import errno
import json
import os
import random
import resource
import signal
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from energy_world import World, absent_gpu, make_meter
from hypothesis import given
from hypothesis import strategies as st
from test_cli import run, run_json

from charstat.alphabet import Alphabet
from charstat.corpus import open_corpus
from charstat.counting import CountingPlan, SizeLimits, build_model
from charstat.cpu.backend import CPUBackend
from charstat.errors import CorpusError, ResourceError, UserError
from charstat.model import Model
from charstat.ngram.contexts import select_contexts
from charstat.ngram.table import CountTable
from charstat.ngram.words import model_symbol_info, vocabulary_words
from charstat.pipeline import Watch
from charstat.placing import LOCK_S
from charstat.shards.build import ShardedBuild, check_plan, check_total
from charstat.shards.cluster import check_workers, open_cluster, worker_facts
from charstat.shards.energy import Measured, add_up
from charstat.shards.files import MARK, SHARDS, finished, hold_folder, open_folder, shard_name, write_file
from charstat.shards.history import carried, summary
from charstat.shards.reduce import merged
from charstat.shards.scan import Span, cut, shards_of
from charstat.shards.words import Words, most_frequent, union
from charstat.storage import COLUMNS, DirectoryColumns
from charstat.texts.parts import PART_BYTES

pytest.importorskip("distributed")

KEY = "0" * 64
EVERYTHING = "o0,o1,o2,o5,o8,o9,o14,o24,c3,s1.3,s2.8,plain,p.w3,p.number,p.lower1.lower2,p.suffix,p.suffixes"
ALPHABET = "ab 1\n.B"


# The steps.


@given(
    st.lists(st.one_of(st.text(ALPHABET, max_size=30), st.sampled_from(["x" * 70, "7" * 40, " " * 40, "Q" * 33 + "a " * 30])), max_size=8),
    st.lists(st.integers(0, 200), min_size=1, max_size=3),
)
def test_a_history_stands_for_all_the_text_before(parts, cuts):
    text = "".join(parts)
    alphabet = Alphabet.from_text(ALPHABET + "x7Q" + text)
    info, contexts = model_symbol_info(alphabet), select_contexts(EVERYTHING, 8)
    edges = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
    symbols = alphabet.encode(text)
    shards = [symbols[a:b] for a, b in pairwise(edges)]
    histories = carried([summary(shard, info) for shard in shards], info)
    for shard, history, first in zip(shards, histories, edges, strict=False):
        assert history.size <= 21 * (32 + 24 + 1)
        if shard.size and history.size:
            whole = counted(np.concatenate([symbols[:first], shard]), first, contexts, info)
            assert counted(np.concatenate([history, shard]), history.size, contexts, info) == whole


def counted(symbols, n_history, contexts, info) -> dict:
    """{context: {identity: {symbol, or the letters of a word: count}}} of a text after its history."""
    found, packed = {}, None
    for part in CPUBackend(1).count(symbols, n_history, contexts, info, Watch().phase):
        if not isinstance(part, CountTable):
            packed = [tuple(map(int, row)) for row in vocabulary_words(part)[0]]
            continue
        starts, what, counts = part.starts(), part.symbols().tolist(), part.counts().tolist()
        names = [packed[w] for w in what] if part.context.is_words else what
        found[part.context.name] = {
            int(identity): dict(zip(names[a:b], counts[a:b], strict=True))
            for identity, a, b in zip(part.context_identities(), starts[:-1], starts[1:], strict=True)
        }
    return found


@given(st.lists(st.text(max_size=12), max_size=6), st.integers(1, 9), st.one_of(st.none(), st.integers(1, 40)))
def test_pieces(parts, size, limit):
    text = "".join(parts)[: 10**9 if limit is None else limit]
    pieces = list(cut(parts, size, limit))
    assert "".join(pieces) == text
    assert all(len(piece) == size for piece in pieces[:-1]) and all(pieces)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 100), st.integers(1, 4))
def test_shards(sizes, most, at_a_time):
    spans = [Span("x", i, n, n) for i, n in enumerate(sizes)]
    shards = shards_of(spans, most, at_a_time)
    assert [span for shard in shards for span in shard] == spans and all(shards)
    assert all(len(shard) == 1 or sum(span.chars for span in shard) <= most for shard in shards)


@given(st.lists(st.dictionaries(st.integers(0, 60), st.integers(1, 50), max_size=20), min_size=1, max_size=7), st.integers(50, 120))
def test_merging_runs_adds_counts_up_to_the_most(runs, most):
    wanted: dict[int, int] = {}
    for one in runs:
        for key, n in one.items():
            wanted[key] = wanted.get(key, 0) + n
    arrays = [(np.array(sorted(one), np.uint64), np.array([one[k] for k in sorted(one)], np.uint32)) for one in runs]
    keys, counts = merged(arrays, most)
    assert dict(zip(keys.tolist(), counts.tolist(), strict=True)) == {k: min(n, most) for k, n in wanted.items()}
    assert (np.diff(keys.astype(np.int64)) > 0).all()


def words(counts: dict[int, int]) -> Words:
    packed = np.zeros((len(counts), 4), np.uint64)
    packed[:, 1] = sorted(counts)
    return Words(packed, np.full(len(counts), 9, np.uint8), np.array([counts[k] for k in sorted(counts)], np.int64))


def test_a_vocabulary_that_is_too_large_keeps_the_most_frequent():
    both = union(words({1: 5, 3: 1, 7: 2}), words({2: 2, 3: 1, 9: 9}))
    assert both.packed[:, 1].tolist() == [1, 2, 3, 7, 9] and both.counts.tolist() == [5, 2, 2, 2, 9]
    kept = most_frequent(both, 3)
    assert kept.packed[:, 1].tolist() == [1, 2, 9]  # of equals, the first


def test_files_are_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "a.part"
    assert write_file(path, [b"abc", np.arange(3)], KEY, lambda: {"n": 1}) == {"n": 1} == finished(path, KEY)
    assert finished(path, "1" * 64) is None
    path.write_bytes(b"abd" + path.read_bytes()[3:])
    assert finished(path, KEY) is None

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ResourceError, match=r"cannot write .*b.part in the work directory: the disk is full; make room, .* --resume"):
        write_file(tmp_path / "b.part", [b"abc"], KEY, dict)
    assert not list(tmp_path.glob(".b*")) and finished(tmp_path / "b.part", KEY) is None


def test_a_work_directory_is_ours_or_empty(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ResourceError, match="holds other files: choose an empty one with --work-dir"):
        open_folder(tmp_path, KEY, False)
    assert not open_folder(tmp_path / "w", KEY, True)
    assert open_folder(tmp_path / "w", KEY, True)
    with pytest.raises(ResourceError, match="of a build with other options, another text or another charstat"):
        open_folder(tmp_path / "w", "1" * 64, True)
    write_file(tmp_path / "w/a.part", [b"x"], KEY, dict)
    assert not open_folder(tmp_path / "w", KEY, False) and [f.name for f in (tmp_path / "w").iterdir()] == [MARK]


def test_one_build_at_a_time_has_a_work_directory(tmp_path):
    handle = hold_folder(tmp_path / "w")
    with pytest.raises(UserError, match=r"another build is using the work directory .*w: wait for it, or choose another --work-dir"):
        hold_folder(tmp_path / "w")
    os.close(handle)
    os.close(hold_folder(tmp_path / "w"))


def test_shards_do_not_wait_for_the_lock_that_the_build_holds(tmp_path):
    handle = hold_folder(tmp_path / "w")
    started = time.perf_counter()
    columns = DirectoryColumns(tmp_path / "w" / shard_name(0))
    waited = time.perf_counter() - started
    columns.discard()
    os.close(handle)
    assert waited < LOCK_S / 2


def test_a_text_whose_counts_do_not_fit():
    alphabet = Alphabet.from_text("".join(map(chr, range(33, 133))))
    tally = np.zeros(0x110000, np.int64)
    tally[33:133] = 1 << 24
    check_total(tally, alphabet)
    tally[33:133] = 1 << 40
    with pytest.raises(ResourceError, match="a model has room for 2,147,483,647: count less with --limit"):
        check_total(tally, alphabet)


def measured(host: str, first: bool = True, gpu=None, cpu=None) -> Measured:
    world = World()
    with make_meter(world, gpu=gpu, cpu=cpu) as meter:
        world.spend(10, gpu_j=2_000, cpu_j=300)
    return Measured(host, meter.report(), "", first)


def test_energy_adds_up_or_is_null_with_the_host_that_lacks_it():
    total = add_up([measured("a"), measured("a", first=False), measured("b")], 55.5)
    assert (total.seconds, total.gpu_gross_j, total.cpu_j) == (55.5, 6_000, 600)  # one CPU counter of host a
    assert total.contest_main_j == 3 * (2_000 - 500) and not total.reasons
    total = add_up([measured("a"), measured("b", gpu=absent_gpu())], 1.0)
    assert total.gpu_gross_j is None and total.reasons["gpu_gross_j"] == "b: no NVIDIA driver" and total.cpu_j == 600
    total = add_up([measured("a"), Measured("b", None, "the worker that measured was lost", True)], 1.0)
    assert total.cpu_j is None and total.reasons["cpu_j"] == "b: the worker that measured was lost"


def test_what_does_not_combine_is_said():
    assert "the weights of the context tree are not part of the model" in check_plan(CountingPlan.of(6, models="ctw"))[0]
    assert check_plan(CountingPlan.of(6)) == []


# Whole builds.


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    (folder / MARK).write_text("{}")
    with open_cluster(folder, MARK, None, 2, 1 << 30, 1) as opened:
        yield opened


def build(
    cluster, tmp_path, corpus, plan, shard_chars=9_000, resume=False, tell=lambda label, share: None, limit=None, group_bytes=PART_BYTES
) -> Model:
    open_folder(tmp_path / "work", KEY, resume)
    work = ShardedBuild(cluster, tmp_path / "work", plan, KEY, "cpu", limit, shard_chars, tell, group_bytes)
    model = work.run(corpus, tmp_path / "model", lambda: {"name": corpus.name})
    assert not (tmp_path / "work").exists()
    assert sorted(f.name for f in tmp_path.iterdir() if "model" in f.name) == ["model"]
    return Model.load(model.path)


def assert_same(a: Model, b: Model) -> None:
    assert [name for name in COLUMNS if not np.array_equal(a.arrays[name], b.arrays[name])] == []
    for name in ("tables", "alphabet", "words", "order", "preset", "text"):
        assert a.manifest[name] == b.manifest[name]


@pytest.fixture(scope="module")
def many(tmp_path_factory, english, crowded_text) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for i in range(7):
        titled = "\n".join(f" = Part {i}, {j} = \n\n{english[at : at + 4_500]}" for j, at in enumerate((i * 9_000, i * 9_000 + 4_500)))
        (folder / f"part-{i}.txt").write_text(titled, encoding="utf-8")
    documents = [crowded_text[:5_000], "lone \ud83d and pair \ud83d\udc1d", "", crowded_text[5_000:9_000]]
    (folder / "records.jsonl").write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))
    return folder


@pytest.fixture(scope="module")
def single(many) -> Model:
    return build_model(open_corpus(many).text("train"), order=10, contexts="default", backend="cpu", threads=1)


PLAN = CountingPlan.of(10, "default")


def test_the_model_is_that_of_one_machine(cluster, tmp_path, many, single):
    model = build(cluster, tmp_path, open_corpus(many), PLAN)
    assert_same(model, single)
    assert model.classes.hashes.size > 200 and np.unique(model.tables["p.topic"].context_identities()).size > 5
    about = model.manifest["build"]
    assert [phase["name"] for phase in about["phases"]] == ["scan", "history", "classes", "count", "words", "reduce"]
    assert about["seconds"] > 0 and all(phase["seconds"] > 0 for phase in about["phases"])
    assert about["merged"][0]["device"] and about["energy"]["seconds"] == pytest.approx(sum(p["seconds"] for p in about["phases"]))
    assert about["energy"]["cpu_j"] is not None or about["merged"][0]["device"] in about["energy"]["reasons"]["cpu_j"]


@pytest.mark.parametrize(("shard_chars", "limit", "held_out"), [(1 << 20, None, 0), (2_000, 21_000, 0), (9_000, None, 3_000)])
def test_shards_of_any_size_a_limit_and_held_out_text(cluster, tmp_path, many, shard_chars, limit, held_out):
    plan = replace(CountingPlan.of(4, "o0,o4,p,p.w1,p.number"), held_out_chars=held_out)
    text = open_corpus(many).text("train", limit)
    whole = build_model(text, order=4, contexts=plan.preset, held_out_chars=held_out, backend="cpu", threads=1)
    model = build(cluster, tmp_path, open_corpus(many), plan, shard_chars, limit=limit)
    assert_same(model, whole)
    assert model.warm_start_chars == held_out


def test_begun_with_the_start_of_another_model(cluster, tmp_path, many, english):
    options = {"order": 4, "contexts": "o0,o4,p,p.w1", "backend": "cpu", "threads": 1}
    other = build_model(english[:9_000], held_out_chars=2_000, **options)
    plan = CountingPlan.of(4, options["contexts"], start=other)
    model = build(cluster, tmp_path, open_corpus(many), plan)
    whole = build_model(open_corpus(many).text("train"), start=other, **options)
    assert_same(model, whole)
    assert model.manifest["start"] == whole.manifest["start"] and model.warm_start_chars == 2_000
    assert "the start of another model" in str(model.manifest["build"]["energy"]["notes"])


@pytest.mark.parametrize("text", ["x", "no_separator_at_all", "\n\n \n", "Zahlen 12 und Wörter. " * 40])
def test_texts_that_are_small_or_strange(cluster, tmp_path, text):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text(text, encoding="utf-8")
    plan = CountingPlan.of(3, "o0,o1,o3,c2,p,p.w1")
    whole = build_model(open_corpus(tmp_path / "in").text("train"), order=3, contexts=plan.preset, backend="cpu", threads=1)
    assert_same(build(cluster, tmp_path, open_corpus(tmp_path / "in"), plan, 5), whole)


@pytest.mark.parametrize(("max_bytes", "min_count", "packed"), [(1_500_000, 1, None), (900_000, 2, False), (None, 3, None)])
def test_a_model_cut_to_a_size_is_that_of_one_machine(cluster, tmp_path, many, monkeypatch, max_bytes, min_count, packed):
    size = SizeLimits.of(max_bytes, min_count, packed)
    plan = replace(CountingPlan.of(10, "default", size=size), held_out_chars=1_000)
    text = open_corpus(many).text("train")
    options = {"max_bytes": max_bytes, "min_count": min_count, "packed": packed}
    whole = build_model(text, order=10, contexts="default", held_out_chars=1_000, backend="cpu", threads=1, **options)
    monkeypatch.setattr("charstat.pruning.spans.SPAN_ROWS", 3_000)
    monkeypatch.setattr("charstat.pruning.spans.SMALL_BYTES", 100)
    model = build(cluster, tmp_path, open_corpus(many), plan)
    assert_same(model, whole)
    cost = whole.manifest["pruned"].pop("held_out")
    assert model.manifest["pruned"] == whole.manifest["pruned"] | ({"held_out": cost} if min_count == 1 else {})
    assert max_bytes is None or sum(f.stat().st_size for f in Path(model.path).iterdir()) <= max_bytes


def test_a_model_for_a_context_tree_is_built_without_its_weights(cluster, tmp_path, many):
    plan = CountingPlan.of(4, "o0,o1,o4,p", "ctw,mix")
    model = build(cluster, tmp_path, open_corpus(many), plan)
    assert_same(model, build_model(open_corpus(many).text("train"), order=4, contexts=plan.preset, backend="cpu", threads=1))
    assert model.models == ("ctw", "mix") and model.weights is None


def test_a_model_that_is_packed_alone(cluster, tmp_path, many, single):
    assert_same(build(cluster, tmp_path, open_corpus(many), replace(PLAN, size=SizeLimits.of(None, 1, True))), single)
    assert sorted(f.name for f in (tmp_path / "model").iterdir()) == ["manifest.json", "packed.bin"]


def test_too_small_a_size_and_a_full_disk_for_the_cut(cluster, tmp_path, many, monkeypatch):
    plan = CountingPlan.of(3, "o0,o3,p,p.w1", size=SizeLimits.of(3_000, 1, None))
    with pytest.raises(UserError, match=r"no model fits in 3,000 bytes: what cannot be cut takes [\d,]+ "):
        build(cluster, tmp_path, open_corpus(many), plan)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["work"]

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("charstat.pruning.spans.os.posix_fallocate", full)
    monkeypatch.setattr("charstat.pruning.spans.SMALL_BYTES", 100)
    with pytest.raises(ResourceError, match=r"cannot keep [\d,]+ bytes in .*work for cutting the model: No space left"):
        build(cluster, tmp_path, open_corpus(many), replace(plan, size=SizeLimits.of(300_000, 1, False)), resume=True)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["work"]


@pytest.mark.parametrize("name", ["one.raw", "in/wiki.train.raw"])
def test_one_large_file_is_read_in_parts(cluster, tmp_path, english, crowded_text, name):
    text = "\ufeff" + (english[:11_000] + crowded_text[:6_000] + "蜂🐝é" * 700).replace("\n", "\r\n") + "the end"
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode("utf-8", "replace"))
    corpus = open_corpus(path if name == "one.raw" else path.parent)
    plan = replace(CountingPlan.of(5, "o0,o5,p,p.w1"), held_out_chars=2_000)
    labels = []
    model = build(cluster, tmp_path, corpus, plan, 3_000, tell=lambda label, share: labels.append(label), group_bytes=1_001)
    whole = build_model(corpus.text("train"), order=5, contexts=plan.preset, held_out_chars=2_000, backend="cpu", threads=1)
    assert_same(model, whole)
    assert "reading 20 of" in " ".join(labels)


def test_a_large_file_with_a_bad_part_is_left_out_whole(cluster, tmp_path, many):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_bytes(b"good text\n" * 30)
    (tmp_path / "in/b.jsonl").write_bytes(b'{"text": "line by line"}\n' * 90)
    (tmp_path / "in/c.txt").write_bytes(b"fine " * 400 + b"\xff" + b"fine " * 100)
    plan = CountingPlan.of(3, "o0,o3,p")
    with pytest.raises(CorpusError, match=r"c.txt' is not UTF-8: byte 0xff at byte offset 2000"):
        build(cluster, tmp_path, open_corpus(tmp_path / "in"), plan, group_bytes=200)
    corpus = open_corpus(tmp_path / "in", skip_bad_files=True)
    model = build(cluster, tmp_path, corpus, plan, 900, group_bytes=200)
    text = "good text\n" * 30 + "line by line\n" * 90
    assert_same(model, build_model(text, order=3, contexts=plan.preset, backend="cpu", threads=1))
    assert [entry["file"] for entry in corpus.about["skipped_files"]] == [str(tmp_path / "in/c.txt")]


def kill_a_worker(cluster) -> None:
    """kill -9 of one worker process; its nanny starts another."""
    found = cluster.client.run(os.getpid)
    os.kill(random.Random(len(found)).choice(sorted(found.values())), signal.SIGKILL)


@pytest.mark.parametrize("stage", ["histories 1 ", "counting 2 ", "merging 4 "])
def test_a_worker_that_is_killed_changes_nothing(cluster, tmp_path, many, single, stage):
    killed = []

    def tell(label: str, share: float) -> None:
        if label.startswith(stage) and not killed:
            killed.append(label)
            kill_a_worker(cluster)

    assert_same(build(cluster, tmp_path, open_corpus(many), PLAN, tell=tell), single)
    assert killed


class Stop(Exception):
    """What ends a build in a test."""


def test_a_build_that_failed_goes_on_from_its_shards(cluster, tmp_path, many, single):
    def stop(label: str, share: float) -> None:
        if label.startswith("merging 3 "):
            raise Stop

    build_model("an earlier model", order=1, contexts="o0", out=tmp_path / "model")
    earlier = {f.name: f.read_bytes() for f in (tmp_path / "model").iterdir()}
    with pytest.raises(Stop):
        build(cluster, tmp_path, open_corpus(many), PLAN, tell=stop)
    assert {f.name: f.read_bytes() for f in (tmp_path / "model").iterdir()} == earlier
    assert sorted(f.name for f in tmp_path.iterdir()) == ["model", "work"]
    shards = sorted((tmp_path / "work" / SHARDS).iterdir())
    times = {shard.name: (shard / "manifest.json").stat().st_mtime_ns for shard in shards}
    harmed = shards[1] / "rows.npy"
    harmed.write_bytes(harmed.read_bytes()[:-1] + b"\xee")
    again = {}

    def look(label: str, share: float) -> None:
        if label.startswith("merging 1 "):
            again.update({shard.name: (shard / "manifest.json").stat().st_mtime_ns for shard in shards})

    assert_same(build(cluster, tmp_path, open_corpus(many), PLAN, resume=True, tell=look), single)
    assert [name for name in times if times[name] != again[name]] == [shards[1].name] and len(times) > 5


def limit_files(n_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def test_a_disk_that_refuses_loses_nothing(cluster, tmp_path, many, single):
    cluster.client.run(limit_files, 300_000)  # the text fits, a shard does not
    try:
        with pytest.raises(ResourceError, match=r"cannot write .*shards/0000.*: File too large.* \(on "):
            build(cluster, tmp_path, open_corpus(many), PLAN)
    finally:
        cluster.client.run(limit_files, resource.RLIM_INFINITY)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["work"]
    assert_same(build(cluster, tmp_path, open_corpus(many), PLAN, resume=True), single)


def test_a_broken_file_is_named_or_skipped(cluster, tmp_path, many, single):
    copy = tmp_path / "in"
    copy.mkdir()
    for path in many.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "part-3b.txt").write_bytes(b"fine \xff")
    (copy / "part-5b.txt").write_bytes((copy / "part-5.txt").read_bytes())
    with pytest.raises(CorpusError, match=r"part-5.txt' and .*part-5b.txt' hold the same bytes"):
        build(cluster, tmp_path, open_corpus(copy), PLAN)
    (copy / "part-5b.txt").unlink()
    with pytest.raises(CorpusError, match=r"part-3b.txt' is not UTF-8: byte 0xff at byte offset 5"):
        build(cluster, tmp_path, open_corpus(copy), PLAN)
    corpus = open_corpus(copy, skip_bad_files=True)
    assert_same(build(cluster, tmp_path, corpus, PLAN), single)
    assert corpus.about["skipped"] == 1 and "part-3b.txt" in corpus.about["skipped_files"][0]["file"]


# Workers that cannot do it.


def test_no_scheduler(tmp_path, monkeypatch):
    monkeypatch.setattr("charstat.shards.cluster.CONNECT_S", 0.5)
    with pytest.raises(ResourceError, match=r"no dask scheduler answers at tcp://127.0.0.1:1 .*start one with `dask scheduler`"):
        open_cluster(tmp_path, MARK, "tcp://127.0.0.1:1", None, None, None).__enter__()


@pytest.mark.parametrize("name", ["charstat", "numba", "numpy", "python"])
def test_workers_with_other_versions(tmp_path, name):
    (tmp_path / MARK).write_text("{}")
    facts = worker_facts(str(tmp_path), MARK)
    check_workers({"tcp://a:1": facts}, tmp_path)
    with pytest.raises(UserError, match=rf"the worker tcp://b:1 on .* has {name} 0.0.1, and this process .*: all must have the same"):
        check_workers({"tcp://a:1": facts, "tcp://b:1": facts._replace(**{name: "0.0.1"})}, tmp_path)
    with pytest.raises(UserError, match=r"the worker tcp://b:1 has no charstat like this one \(No module named"):
        check_workers({"tcp://b:1": ModuleNotFoundError("No module named 'charstat'")}, tmp_path)


def test_workers_that_do_not_see_the_work_directory(cluster, tmp_path):
    found = cluster.client.run(worker_facts, str(tmp_path / "not there"), MARK)
    with pytest.raises(
        ResourceError, match=r"cannot use the work directory .*No such file.*choose one that all workers share with --work-dir"
    ):
        check_workers(found, tmp_path / "not there")


# The command.


def test_the_command(tmp_path, monkeypatch, many):
    monkeypatch.chdir(tmp_path)
    options = ("--data", many, "--order", 3, "--contexts", "o0,o1,o3,p,p.w1", "--held-out", 500)
    one = run_json("build", *options, "--out", "one")
    result = run(
        "build", *options, "--engine", "dask", "--workers", 2, "--worker-memory", "700M", "--shard-chars", 20_000, "--out", "two", "--json"
    )
    two = json.loads(result.stdout)
    assert_same(Model.load("one"), Model.load("two"))
    assert (
        two.keys() >= one.keys() | {"worker_peak_rss_bytes", "hosts", "notes"}
        and two["backend"] == "cpu"
        and two["reason"] == "--engine dask"
    )
    assert 0 < two["worker_peak_rss_bytes"] < 700 << 20
    assert [f.name for f in tmp_path.iterdir()] in (["one", "two"], ["two", "one"])
    assert "give it 525 or more" in run("build", *options, "--engine", "dask", "--workers", 1, "--worker-memory", "300M", code=2).output
    assert "only with --engine dask" in run("build", *options, "--workers", 2, code=2).output
    assert "say --worker-memory" in run("build", *options, "--engine", "dask", "--memory", "1G", code=2).output
    assert "choose one" in run("build", *options, "--engine", "dask", "--workers", 2, "--scheduler", "tcp://x:1", code=2).output


def test_without_dask_the_command_says_what_to_install(tmp_path, monkeypatch, many):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "distributed", None)
    output = run("build", "--data", many, "--order", 2, "--contexts", "o0", "--engine", "dask", "--out", "m", code=2).output
    assert 'pip install "charstat[dask]"' in output and not (tmp_path / "m").exists()
