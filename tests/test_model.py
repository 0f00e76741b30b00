"""counting.py and model.py: building, saving, loading, adding up shards."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tables import WORD_NAMES, assert_same, texts

from charstat import __version__, evaluate
from charstat.alphabet import Alphabet
from charstat.corpus import text_fingerprint
from charstat.counting import BACKENDS, CountingPlan, Progress, Watch, build_model, choose_backend, count_text
from charstat.cpu.backend import CPUBackend
from charstat.errors import BackendUnavailable, ContextError, CorpusError, MergeError
from charstat.model import Model
from charstat.ngram.contexts import select_contexts
from charstat.storage import COLUMNS

EVERYTHING = ",".join(["wide", "o7", "o9", "o10", "c2", "c8", "s2", "s1.2.3.4.5.6.7.8", *dict.fromkeys(WORD_NAMES)])


def assert_same_model(a: Model, b: Model):
    assert a.alphabet == b.alphabet and a.alphabet.tree.code == b.alphabet.tree.code and a.alphabet.rare == b.alphabet.rare
    assert set(a.tables) == set(b.tables)
    for name, table in a.tables.items():
        assert_same(table, b.tables[name])
    assert a.vocabulary.size == b.vocabulary.size
    for x, y in zip(a.vocabulary[:3], b.vocabulary[:3], strict=True):
        assert x.dtype == y.dtype and np.array_equal(x, y)


def scores(model: Model, text: str) -> list[float]:
    stream = model.stream()
    stream.reset()
    return stream.score(text).tolist()


# Building.


def test_build(model, train_text):
    assert model.order == 8 and model.path is None
    assert model.contexts == select_contexts("default", 8)
    assert model.alphabet == Alphabet.from_text(train_text)
    assert model.n_rows == sum(t.rows.size for t in model.tables.values())
    assert model.n_bytes == sum(a.nbytes for a in (*model.columns.values(), *model.classes))
    m = model.manifest
    fingerprint = text_fingerprint(train_text)
    assert {k: m["text"][k] for k in fingerprint} == fingerprint and m["text"]["chars"] == len(train_text)
    assert m["text"]["history_chars"] == 0 and m["preset"] == "default" and m["charstat_version"] == __version__
    assert m["build"]["backend"] == "cpu" and m["build"]["seconds"] > 0 and "energy" in m["build"]
    assert {"encode", "orders", "words", "classes"} <= {p["name"] for p in m["build"]["phases"]}
    json.dumps(m)
    assert model.tables["o0"].counts().sum() == len(train_text)
    assert all(not c.flags.writeable for c in model.columns.values())


def test_the_parts_of_all_tables_lie_in_the_columns(model):
    for name, entry in model.manifest["tables"].items():
        t = model.tables[name]
        assert (entry["contexts"], entry["rows"], entry["bits"], entry["start_bits"]) == (t.n_contexts, t.n_rows, t.bits, t.start_bits)
        assert np.shares_memory(t.rows, model.columns["rows"]) or t.n_rows == 0
    assert sum(t.rows.size for t in model.tables.values()) == model.columns["rows"].size


@pytest.mark.parametrize(
    ("options", "error"),
    [({"order": 0}, ContextError), ({"order": 99}, ContextError), ({"contexts": "nope"}, ContextError), ({"contexts": ""}, ContextError),
     ({"backend": "tpu"}, BackendUnavailable)],
)  # fmt: skip
def test_what_cannot_be_built(tmp_path, options, error):
    with pytest.raises(error):
        build_model("some text", out=tmp_path / "m", threads=1, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{}, {"history": "before"}, {"alphabet": Alphabet.from_text("abc")}])
def test_empty_text(tmp_path, options):
    with pytest.raises(CorpusError, match="empty"):
        build_model("", out=tmp_path / "m", **options)
    assert list(tmp_path.iterdir()) == []


def test_progress(tmp_path):
    told: list[Progress] = []
    build_model("the cat sat\n" * 9, order=3, threads=1, progress=told.append)
    steps = [p.done for p in told]
    assert steps == sorted(steps) and told[-1].done == told[-1].total == len(select_contexts("default", 3)) + 2
    assert {p.total for p in told} == {told[-1].total}
    assert {"encode", "o3", "p.w1", "words", "finish"} <= {p.phase for p in told}


def test_a_progress_callback_that_fails_leaves_nothing(tmp_path):
    """Ctrl-C arrives in the middle of the counting."""
    earlier = build_model("abc " * 9, order=2, threads=1, out=tmp_path / "m")

    def stop(p: Progress):
        if p.phase == "p.w1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_model("xyz " * 9, order=2, threads=1, out=tmp_path / "m", progress=stop)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert_same_model(Model.load(tmp_path / "m"), earlier)


def test_backends():
    engine, why = choose_backend("cpu", threads=3)
    assert isinstance(engine, CPUBackend) and engine.threads == 3 and why
    assert choose_backend("auto", memory_bytes=3 << 30)[0].budget_bytes in (1 << 30, None)
    assert "auto" in BACKENDS
    engine.synchronize()
    assert engine.device == "3 CPU threads" and CPUBackend(1).device == "1 CPU thread"


def test_threads_give_the_same_model(train_text):
    one, three = (build_model(train_text[:30_000], order=11, contexts="wide", threads=t) for t in (1, 3))
    assert_same_model(one, three)


def test_little_memory_gives_the_same_model(english):
    """The smallest budget, 1 MiB of keys: the text is passed over three times for every context."""
    options = {"order": 9, "contexts": "o3,o9,c14,p.w1", "threads": 2}
    assert_same_model(build_model(english[:300_000], **options), build_model(english[:300_000], memory_bytes=1, **options))


# In memory, on disk.


def test_save_and_load(tmp_path, model, held_out):
    saved = model.save(tmp_path / "m")
    loaded = Model.load(tmp_path / "m")
    assert saved.path == loaded.path == str(tmp_path / "m")
    wanted = scores(model, held_out[:500])
    for other in (saved, loaded, Model.load(tmp_path / "m", verify=False)):
        assert_same_model(model, other)
        assert scores(other, held_out[:500]) == wanted
    one, two = model.stream(), loaded.stream()
    for s in (one, two):
        s.reset()
        s.score(held_out[:100])
    assert one.predict() == two.predict() and one.predict_char() == two.predict_char()
    assert {k: v for k, v in loaded.manifest.items() if k in ("text", "order", "preset", "build", "data")} == json.loads(
        json.dumps({k: v for k, v in model.manifest.items() if k in ("text", "order", "preset", "build", "data")})
    )


def test_built_into_a_directory(tmp_path, train_text, held_out):
    text = train_text[:20_000]
    data = {"name": "topics", "split": "train"}
    on_disk = build_model(text, order=6, threads=1, held_out_chars=500, out=tmp_path / "deep" / "er", data=data)
    in_memory = build_model(text, order=6, threads=1, held_out_chars=500)
    assert_same_model(on_disk, in_memory)
    assert scores(on_disk, held_out[:200]) == scores(in_memory, held_out[:200])
    assert on_disk.manifest["data"] == data
    assert sorted(p.name for p in (tmp_path / "deep" / "er").iterdir()) == sorted(["manifest.json", *(f"{c}.npy" for c in COLUMNS)])
    arrays = on_disk.all_columns
    for column, dtype in COLUMNS.items():
        array = np.load(tmp_path / "deep" / "er" / f"{column}.npy", allow_pickle=False)  # any NumPy program can read them
        assert array.dtype == dtype and np.array_equal(array, arrays[column])
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["er"]


def test_save_in_place(tmp_path, model, held_out):
    """A loaded model saved over itself: its arrays are mapped from the files that are being replaced."""
    loaded = model.save(tmp_path / "m")
    again = loaded.save(tmp_path / "m")
    assert scores(again, held_out[:100]) == scores(loaded, held_out[:100]) == scores(model, held_out[:100])
    assert_same_model(again, model)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("text", ["a", "ab", " ", "\n\n", "abcabc", "戦" * 5, "a b", "\ud800x\udfff "])
def test_small_models_are_the_same_everywhere(tmp_path, text):
    model = build_model(text, order=3, contexts="wide", threads=1)
    loaded = model.save(tmp_path / "m")
    assert_same_model(loaded, model)
    assert scores(loaded, text + "abc 戦") == scores(model, text + "abc 戦")


def test_a_model_of_lone_surrogates_can_be_saved(tmp_path):
    """Two that stand side by side in the alphabet: json would read them back as one character."""
    for text in ("\ud83d" * 3 + "\ude00" * 2, "\ud83d" * 2 + "\ude00" * 3):
        model = build_model(text, order=2, threads=1)
        loaded = model.save(tmp_path / "m")
        assert scores(loaded, text) == scores(model, text)


# Shards.


def shards(text, edges, alphabet, **options):
    """Models of the pieces of a text between edges, each with all text before it as history."""
    edges = sorted({0, len(text), *edges})
    return [build_model(text[a:b], history=text[:a], alphabet=alphabet, **options) for a, b in itertools.pairwise(edges)]


def merge_all(models):
    total = models[0]
    for m in models[1:]:
        total = Model.merge(total, m)
    return total


@pytest.mark.parametrize("order", [14, 24])
@pytest.mark.parametrize("cut", ["start", "inside a word", "at a space", "after a space", "end"])
def test_shards_are_the_whole(train_text, order, cut):
    """Every array of every table in the wide preset, wherever the border lies."""
    text = train_text[:12_000]
    space = text.index(" ", 7_000)
    at = {"start": 1, "inside a word": space + 3, "at a space": space, "after a space": space + 1, "end": len(text) - 1}[cut]
    assert cut != "inside a word" or text[at - 1].isalpha() and text[at].isalpha()
    options = {"order": order, "contexts": EVERYTHING, "threads": 1}
    alphabet = Alphabet.from_text(text)
    whole = build_model(text, alphabet=alphabet, **options)
    assert_same_model(merge_all(shards(text, [at], alphabet, classes=whole.classes, **options)), whole)


def test_many_shards(tmp_path, train_text, held_out):
    """Seven shards, some of them a few characters, rare characters among them; merged in memory and into a directory."""
    text = train_text[:5_000] + held_out
    options = {"order": 9, "contexts": "wide", "threads": 1}
    alphabet = Alphabet.from_text(train_text)
    whole = build_model(text, alphabet=alphabet, **options)
    parts = shards(text, [2_000, 2_001, 2_005, 5_000, 5_040, 5_050], alphabet, classes=whole.classes, **options)
    assert len(parts) == 7
    assert_same_model(merge_all(parts), whole)
    right = parts[-1]
    for m in reversed(parts[:-1]):
        right = Model.merge(m, right)
    assert_same_model(right, whole)
    on_disk = Model.merge(merge_all(parts[:3]), merge_all(parts[3:]), out=tmp_path / "m")
    assert on_disk.path == str(tmp_path / "m")
    assert_same_model(Model.load(tmp_path / "m"), whole)
    assert scores(on_disk, held_out[:200]) == scores(whole, held_out[:200])
    assert on_disk.manifest["text"]["chars"] == len(text)


@given(text=texts.filter(lambda t: len(t) > 1), data=st.data())
@settings(max_examples=12)
def test_shards_of_any_text(text, data):
    cuts = data.draw(st.lists(st.integers(1, len(text) - 1), min_size=1, max_size=3))
    options = {"order": 9, "contexts": "wide", "threads": 1}
    alphabet = Alphabet.from_text("abcABC012 \n.'")
    assert_same_model(merge_all(shards(text, cuts, alphabet, **options)), build_model(text, alphabet=alphabet, **options))


def test_shards_without_history(train_text):
    """As merge() says: the few n-grams and words that straddle the border are missing, nothing is counted twice."""
    a, b = train_text[:3_000], train_text[3_000:5_000]
    options = {"order": 6, "threads": 1, "alphabet": Alphabet.from_text(a + b)}
    whole = build_model(a + b, **options)
    total = Model.merge(build_model(a, classes=whole.classes, **options), build_model(b, classes=whole.classes, **options))
    for name, table in whole.tables.items():
        missing = int(table.counts().sum()) - int(total.tables[name].counts().sum())
        reach = table.context.reach
        # words: the shards tokenise on their own, so the same number of separators is found, in other contexts
        assert missing == (0 if table.context.is_words else reach), name


def test_the_manifest_of_a_merged_model(train_text):
    a, b = shards(train_text[:4_000], [1_000], Alphabet.from_text(train_text), order=3, contexts="plain", threads=1)
    merged = Model.merge(a, b)
    assert merged.order == 3 and merged.manifest["text"]["chars"] == 4_000
    assert [t["chars"] for t in merged.manifest["text"]["parts"]] == [1_000, 3_000]
    assert b.manifest["text"]["history_chars"] == 1_000
    json.dumps(merged.manifest)


def test_what_cannot_be_merged(tmp_path):
    alphabet = Alphabet.from_text("abc ")
    a = build_model("abc abc", order=2, threads=1, alphabet=alphabet)
    with pytest.raises(MergeError, match="different alphabets.*alphabet="):
        Model.merge(a, build_model("abd abd", order=2, threads=1), out=tmp_path / "m")
    with pytest.raises(MergeError, match="different contexts: o3"):
        Model.merge(a, build_model("abc abc", order=3, threads=1, alphabet=alphabet), out=tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_history_is_context_only():
    """History is not counted, and the alphabet does not come from it."""
    m = build_model("bb", history="aaaa ", order=2, contexts="chars,p.w1", threads=1)
    assert m.alphabet.chars == "b"
    assert m.tables["o0"].counts().tolist() == [2]
    assert m.tables["o2"].counts().tolist() == [1, 1]
    assert m.manifest["text"]["chars"] == 2 and m.manifest["text"]["history_chars"] == 5


class TestThePipeline:
    """count_text() as the contest's entry uses it: no meter, no checksums, and a clock that can stop it."""

    def test_it_counts_what_build_model_counts(self, train_text):
        text = train_text[:20_000]
        plan = CountingPlan.of(4, "o0,o1,o4,p", ("mix", "ctw"), held_out_chars=2000)
        engine = choose_backend("cpu", 1)[0]
        counted = count_text(text, plan, engine)
        counted.learn_warm_start()
        ours = counted.model(build={"backend": engine.name})
        theirs = build_model(text, order=4, contexts="o0,o1,o4,p", models="mix,ctw", held_out_chars=2000, backend="cpu", threads=1)
        assert_same_model(ours, theirs)
        assert np.array_equal(ours.betas, theirs.betas) and np.array_equal(ours.warm_start, theirs.warm_start)
        assert ours.manifest["text"] == {"chars": 18_000}
        assert ours.manifest["start"] == {key: theirs.manifest["start"][key] for key in ("chars", "layout")}
        assert ours.models == ("mix", "ctw") and ours.order == plan.order == 4

    def test_a_watch_can_stop_it(self, train_text):
        class Deadline(Watch):
            def tell(self, name, share=0.0):
                if name == self.last:
                    raise TimeoutError

        plan, engine = CountingPlan.of(3, held_out_chars=500), choose_backend("cpu", 1)[0]
        counting, learning = Deadline(), Deadline()
        counting.last, learning.last = "o2", "learn"
        with pytest.raises(TimeoutError):
            count_text(train_text[:5000], plan, engine, watch=counting)
        counted = count_text(train_text[:5000], plan, engine, watch=learning)
        with pytest.raises(TimeoutError):
            counted.learn_warm_start(learning)
        model = counted.model()
        assert model.warm_start_chars == 0 and model.warm_start.size == 0 and evaluate(model.stream(), "some text").chars == 9

    def test_the_steps_of_the_plan_are_those_that_are_told(self, train_text):
        for models, held_out in (("match", 0), ("ctw", 0), ("advised", 300)):
            told = []
            build_model(train_text[:3000], order=9, models=models, held_out_chars=held_out, threads=1, progress=told.append)
            assert (told[0].done, told[-1].done) == (0, told[-1].total) and {p.total for p in told} == {told[0].total}
            assert [p.done for p in told] == sorted(p.done for p in told)
