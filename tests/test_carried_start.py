"""mixers/carried_start.py and `charstat build --start`: a mixture that begins with what another model's has learned, as far as it fits."""

import json
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner

from charstat import ArgumentError, FormatError, Model, UserError
from charstat.alphabet import Alphabet
from charstat.cli import cli
from charstat.contest.bundle import embedded_sources
from charstat.contest.presets import PRESETS
from charstat.counting import build_model
from charstat.manifest import seal
from charstat.mixers.carried_start import Learned, blocks_of, carry_over, node_shares
from charstat.mixers.layout import WORD_PLACES
from charstat.mixers.warm_start import pack
from charstat.ngram.class_examples import class_words
from charstat.ngram.classes import SMALL
from charstat.tree import ESCAPE, CodeTree

HELD_OUT = 12_000
OPTIONS = {"order": 5, "contexts": "o0,o1,o2,o3,o5,p,p.w1", "threads": 1}


@pytest.fixture(scope="module")
def text(english):
    return english[:80_000]


@pytest.fixture(scope="module")
def other_text(english):
    return english[100_000:150_000]


@pytest.fixture(scope="module")
def other(text):
    """The model whose start is carried over."""
    return build_model(text, held_out_chars=HELD_OUT, **OPTIONS)


@pytest.fixture(scope="module")
def model(other, other_text):
    return build_model(other_text, start=other, **OPTIONS)


def started(model, **options):
    stream = model.stream(**options)
    stream.reset()
    return stream


def part(model, name):
    """The rows of a selector set in a model's start."""
    found = Learned.start(model)
    sizes = {each["name"]: each["rows"] for each in found.layout.describe()["selector_sets"]}
    return found.rows(name, 0, sizes[name])[:, : found.layout.inputs]


# The same model ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contexts", ["o0,o1,o2,o3,o5,p,p.w1", "default"])
def test_the_same_model_has_the_same_start(text, english, contexts):
    options = {**OPTIONS, "contexts": contexts}
    other = build_model(text[:40_000], held_out_chars=5000, **options)
    again = build_model(text[:35_000], start=other, **options)
    assert np.array_equal(again.warm_start, other.warm_start) and again.warm_start_chars == 5000
    origin = again.manifest["start"]["from"]
    assert origin["cold_rows"] == origin["cold"] == origin["left_out"] == []
    assert origin["nodes"] == origin["characters"] == origin["classes"] == 0
    another = english[200_000:200_500]
    assert np.array_equal(started(again).score(another), started(other).score(another))
    assert started(again).mixer.weights.any()


def test_it_goes_on_from_there(text, other, english):
    """Held-out text, too: what a stream that began with the other start has learned after it."""
    model = build_model(text[100:], start=other, held_out_chars=3000, **OPTIONS)
    assert model.warm_start_chars == HELD_OUT + 3000 and model.manifest["start"]["text"]["chars"] == 3000
    begun = build_model(text[100:-3000], start=other, **OPTIONS)
    assert "text" not in begun.manifest["start"] and begun.manifest["text"] == model.manifest["text"]
    stream = started(begun)
    stream.score(text[-3000:])
    assert np.array_equal(pack(stream.mixer), model.warm_start)
    assert "learn" in [phase["name"] for phase in begun.manifest["build"]["phases"]]
    said = "the start of another model was learned in that model's build"  # whose energy this one's report leaves out
    assert said in " ".join(begun.manifest["build"]["energy"]["notes"]) and said not in str(other.manifest["build"])


# Another text -----------------------------------------------------------------------------------------------------------------


def test_it_pays_on_another_text(model, other, english):
    another = english[380_000:383_000]
    assert started(model).score(another).mean() < started(model, warm_start=False).score(another).mean() - 0.02
    origin = model.manifest["start"]["from"]
    assert (origin["path"], origin["chars"]) == (None, HELD_OUT) and len(origin["sha256"]) == 64
    assert model.alphabet.chars != other.alphabet.chars and origin["nodes"] > 0 and origin["characters"] > 0


def test_rows_of_characters_follow_the_characters(model, other):
    symbols, before = model.alphabet.symbol_of, other.alphabet.symbol_of
    for name in ("previous", "before"):
        new, old = part(model, name), part(other, name)
        moved = [char for char in symbols if char in before and symbols[char] != before[char]]
        assert len(moved) > 20 and old[before["e"]].any() and not set(symbols) <= set(before)
        for char, symbol in symbols.items():
            assert np.array_equal(new[symbol], old[before[char]] if char in before else np.zeros_like(old[0]))
        assert np.array_equal(new[ESCAPE], old[ESCAPE]) and not new[model.alphabet.size : ESCAPE].any()


def test_what_belongs_to_neither(model, other):
    ours, theirs = Learned.start(model).mixer, Learned.start(other).mixer
    assert np.array_equal(ours.logits, theirs.logits) and np.array_equal(ours.match, theirs.match)
    for name in ("static_order", "class_place", "online_order", "word_hits", "candidates", "open"):
        assert np.array_equal(part(model, name), part(other, name))


def test_no_row_is_forgotten(model, other):
    """A new selector set needs its line in blocks_of, or it would begin cold, and nobody would know."""
    old, new = Learned.start(other), Learned.start(model)
    covered = Counter()
    for name, first, shares in blocks_of(old, new):
        covered.update((name, first + i) for i in range(shares.shape[0]))
    sizes = {each["name"]: each["rows"] for each in new.layout.describe()["selector_sets"]}
    assert covered == Counter((name, i) for name, n in sizes.items() if name != "node" for i in range(n))


def test_classes_follow_their_words(text, english):
    options = {**OPTIONS, "contexts": "o0,o1,o2,p,p.k1,p.topic"}
    other = build_model(text, held_out_chars=HELD_OUT, **options)
    model = build_model(english[30_000:110_000], start=other, **options)
    origin = model.manifest["start"]["from"]
    assert origin["cold_rows"] == ["topic"] and origin["classes"] > 20
    (names, counts), (known, _) = class_words(model), class_words(other)
    labels, before = model.classes.labels[:, 0], dict(zip(known, other.classes.labels[:, 0], strict=True))
    before.pop("", None)
    for name in ("class_w1", "class_w2", "topic"):
        new, old = part(model, name), part(other, name)
        assert np.array_equal(new[0], old[0])
        if name == "topic":
            assert old[1:].any() and not new[1:].any()
            continue
        for c in range(SMALL):
            words = [i for i in np.flatnonzero(labels == c) if names[i] in before]
            expected = sum((1 + counts[i]) * old[1 + before[names[i]]].astype(float) for i in words)
            assert np.allclose(new[1 + c], expected / max(1, sum(1 + counts[i] for i in words)), atol=1e-6)
        assert np.array_equal(new[1 + SMALL : 129 + SMALL], old[1 + SMALL : 129 + SMALL])  # shapes: of a kind and a length
        dot, its = (129 + SMALL + m.alphabet.symbol_of["."] for m in (model, other))  # then by the last character
        assert np.array_equal(new[dot], old[its]) and old[its].any()


def test_no_word_in_common(text, other):
    options = {**OPTIONS, "contexts": "o0,o1,p,p.k1"}
    other = build_model(text, held_out_chars=HELD_OUT, **options)
    for strange in (text[:40_000].translate({ord(a): ord(b) for a, b in zip("etaoins", "ταβγδεζ", strict=True)}), "戦 " * 3000):
        model = build_model(strange, start=other, **options)
        assert started(model).score(strange[:100]).shape == (100,)
        assert np.isfinite(model.warm_start).all() and model.manifest["start"]["from"]["characters"] > 0


# Another code tree ------------------------------------------------------------------------------------------------------------


def alphabet(pairs):
    """The alphabet of a code tree over characters, its last leaf the escape."""
    tree = CodeTree.from_pairs(pairs)

    def chars(t):
        return chars(t[0]) + chars(t[1]) if isinstance(t, tuple) else t

    return Alphabet(chars(pairs)[:-1], tree, {})


def test_decisions_follow_the_characters_that_they_part():
    same = alphabet((("a", "b"), ("c", "*")))
    assert np.array_equal(node_shares(same, same), np.eye(3))
    swapped = alphabet((("b", "a"), ("c", "*")))
    assert np.array_equal(node_shares(same, swapped), np.diag([1.0, -1.0, 1.0]))
    assert np.array_equal(node_shares(swapped, same), np.diag([1.0, -1.0, 1.0]))


def test_decisions_between_other_characters_are_blends():
    old = alphabet((("a", "b"), ("c", "*")))  # nodes: abc*, ab, c*
    new = alphabet(("a", ("b", ("c", "*"))))  # nodes: abc*, bc*, c*
    found = node_shares(old, new)
    # a is parted from b (1/2 * 1/4) at ab; from c and * (1/2 * 1/8 each) at abc*.
    assert np.allclose(found[0], [0.5, 0.5, 0.0]) and np.allclose(found[1], [1.0, 0.0, 0.0]) and np.allclose(found[2], [0.0, 0.0, 1.0])


def test_a_character_that_it_did_not_know_was_an_escape_there():
    old, new = alphabet((("a", "b"), "*")), alphabet((("a", "z"), "*"))
    found = node_shares(old, new)  # a and z: as a and the escape; z and the escape: parted nowhere
    assert np.array_equal(found[1], [1.0, 0.0]) and np.array_equal(found[0], [1.0, 0.0])
    assert np.array_equal(node_shares(alphabet(("a", "*")), alphabet((("y", "z"), "*"))), np.ones((2, 1)))  # of nothing known: the mean


def test_the_bias_changes_its_sign_with_the_sides(other, text):
    """Two characters that one decision parts, the other way round."""
    own, tree = other.alphabet, other.alphabet.tree
    i = tree.code[: tree.code.index("(..")].count(".")
    chars = own.chars[:i] + own.chars[i + 1] + own.chars[i] + own.chars[i + 2 :]
    model = build_model(text[:20_000], alphabet=Alphabet(chars, tree, own.rare), start=other, **OPTIONS)
    v = np.flatnonzero((tree.arrays.lowest == i) & (tree.arrays.end == i + 2))[0]
    new, old, bias = part(model, "node"), part(other, "node"), Learned.start(other).columns.index("bias")
    assert new[v, bias] == -old[v, bias] != 0
    others = np.delete(np.arange(new.shape[1]), bias)
    assert np.array_equal(new[:, others], old[:, others]) and np.array_equal(np.delete(new, v, 0), np.delete(old, v, 0))
    assert model.manifest["start"]["from"]["nodes"] == 1


# Other contexts ---------------------------------------------------------------------------------------------------------------


def test_another_order(text, other, other_text):
    options = {**OPTIONS, "order": 8, "contexts": "o0,o1,o3,o4,o5,o8,p,p.w1,p.w2"}
    model = build_model(other_text, start=other, **options)
    origin = model.manifest["start"]["from"]
    assert (origin["cold"], origin["left_out"]) == (["o4", "o8", "p.w2"], ["o2"])
    assert origin["cold_rows"] == ["word_hits"]  # not candidates: p.w2 is not nested
    ours, theirs, cold = Learned.start(model), Learned.start(other), Learned.nothing(model)
    new, old = (dict(zip(x.columns, range(99), strict=False)) for x in (ours, theirs))
    assert len(ours.columns) == ours.layout.inputs and len(set(ours.columns)) == len(ours.columns)
    for name, k in new.items():
        if name in old:
            assert ours.mixer.weights[:128, k].any() and not np.array_equal(ours.mixer.weights[:, k], cold.mixer.weights[:, k])
        else:
            assert np.array_equal(ours.mixer.weights[:, k], cold.mixer.weights[:, k])
        if name.startswith(("static", "online")):
            expected = theirs.mixer.logits[old[name]] if name in old else cold.mixer.logits[k]
            assert np.array_equal(ours.mixer.logits[k], expected)
    o5 = new["static o5"], old["static o5"]
    levels = {0: 0, 1: 1, 3: 3, 4: 3, 5: 4, 8: 4}  # of the longest order: what was o1, o2, o3, o5 there
    for level, order in enumerate([0, 1, 3, 4, 5, 8]):
        for place in range(WORD_PLACES):
            mine, its = (
                part(model, "static_order")[level * WORD_PLACES + place],
                part(other, "static_order")[levels[order] * WORD_PLACES + place],
            )
            assert mine[o5[0]] == its[o5[1]]
    back = build_model(text[:30_000], start=model, **OPTIONS)
    assert back.manifest["start"]["from"]["left_out"] == ["o4", "o8", "p.w2"] and back.manifest["start"]["from"]["cold"] == ["o2"]


def test_another_kind_of_alphabet(other, other_text):
    model = build_model(other_text[:20_000].encode(), start=other, **OPTIONS)
    symbol, before = model.alphabet.symbol_of["e"], other.alphabet.symbol_of["e"]
    assert model.alphabet.of_bytes and np.array_equal(part(model, "previous")[symbol], part(other, "previous")[before])


# Kept, saved, cut -------------------------------------------------------------------------------------------------------------


def test_saved_and_cut(model, other, other_text, tmp_path):
    saved = model.save(tmp_path / "a")
    assert saved.manifest["start"] == model.manifest["start"] and np.array_equal(Model.load(saved.path).warm_start, model.warm_start)
    small = build_model(other_text, start=other, max_bytes=1_000_000, packed=True, **OPTIONS)
    assert small.manifest["start"]["from"]["chars"] == HELD_OUT and small.warm_start.size == model.warm_start.size
    assert np.abs(small.warm_start - model.warm_start).max() < 0.01 * np.abs(model.warm_start).max()


@pytest.mark.parametrize("change", [{"chars": 0}, {"sha256": "x"}, {"cold": ["nonsense"]}, {"nodes": "3"}, {"more": 1}])
def test_a_manifest_that_says_something_else(model, change):
    origin = {**model.manifest["start"]["from"], **change}
    with pytest.raises(FormatError):
        Model({**model.manifest, "start": {**model.manifest["start"], "from": origin}}, model.all_columns)


# Mistakes ---------------------------------------------------------------------------------------------------------------------


def test_mistakes(other, text):
    for wrong in ("models/other", other.warm_start, 1, True):
        with pytest.raises(ArgumentError, match="start must be a Model"):
            build_model(text, start=wrong, **OPTIONS)
    with pytest.raises(UserError, match="has no start to begin with"):
        build_model(text, start=build_model(text[:5000], **OPTIONS), **OPTIONS)
    manifest = {**other.manifest, "start": {**other.manifest["start"], "layout": "0" * 64}}
    with pytest.raises(UserError, match="another mixer"):
        build_model(text, start=Model(manifest, other.all_columns), **OPTIONS)
    with pytest.raises(UserError, match="another mixer"):
        carry_over(Model(other.manifest, {**other.all_columns, "start": other.warm_start[:-1]}), other)


def test_on_the_command_line(text, other_text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(text[:30_000], encoding="utf-8")
    (tmp_path / "b.txt").write_text(other_text[:30_000], encoding="utf-8")

    def run(*args, code=0):
        result = CliRunner().invoke(cli, [str(a) for a in args])
        assert result.exit_code == code, result.output
        return result

    first = run("build", "--data", "a.txt", "--order", 3, "--contexts", "plain", "--held-out", 5000, "--out", "models/a", "--json")
    assert json.loads(first.stdout)["warm_start_from"] is None
    begun = ("build", "--data", "b.txt", "--order", 4, "--contexts", "plain", "--start", "models/a")
    result = json.loads(run(*begun, "--json").stdout)
    assert (result["warm_start_chars"], result["out"]) == (5000, "models/b-o4-plain-start-a")
    assert result["warm_start_from"]["path"] == str(tmp_path / "models/a") and result["warm_start_from"]["cold"] == ["o4"]
    stored = json.loads((tmp_path / "models/a/manifest.json").read_text())["arrays"]["start"]
    assert result["warm_start_from"]["sha256"] == stored["sha256"]
    shown = run(*begun, "--held-out", 2000, "--out", "models/c").stdout
    for page in (shown, run("inspect", "models/c").stdout):
        page = "".join(page.replace("│", " ").split())  # wherever its lines are broken
        assert "models/a,learnedfrom5,000characters;thenlearnedfrom2,000held-outcharacters" in page
        assert "contextsthatbegincold:o4" in page
    evaluated = run("eval", "--model", "models/c", "--chars", 200, "--gate", 0, "--json")
    assert "a warm start, that of" in " ".join(json.loads(evaluated.stdout)["notes"])
    assert "--held-out and --start: only mix" in run(*begun, "--held-out", 9, "--models", "ppm", "--out", "models/d").stderr


def test_mistakes_on_the_command_line(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(text[:9000], encoding="utf-8")
    plain = build_model(text[:9000], out=tmp_path / "plain", **OPTIONS)
    begun = build_model(text[:9000], held_out_chars=500, out=tmp_path / "other", **OPTIONS)
    (tmp_path / "other" / "manifest.json").write_bytes(seal({**begun.manifest, "start": {**begun.manifest["start"], "layout": "0" * 64}}))
    (tmp_path / "empty").mkdir()
    for path, said in (
        ("nowhere", "nowhere"), ("empty", "empty"), ("a.txt", "a.txt"), (plain.path, "has no start"), ("other", "by another version"),
    ):  # fmt: skip
        result = CliRunner().invoke(cli, ["build", "--data", "a.txt", "--order", "3", "--start", str(path), "--out", "m"])
        assert (result.exit_code, result.stdout) == (2, "") and said in result.stderr and result.stderr.count("\n") == 1
        assert "Traceback" not in result.stderr and not (tmp_path / "m").exists()
    result = CliRunner().invoke(cli, ["build", "--tokens", "x.npy", "--vocab-size", "8", "--start", "plain"])
    assert result.exit_code == 2 and "--start is for texts" in result.stderr


@pytest.mark.parametrize("backend", ["cpu", "auto"])
@pytest.mark.parametrize("preset", PRESETS)
def test_no_submission_carries_it(preset, backend):
    assert "start" not in PRESETS[preset].to_dict()
    assert "charstat/mixers/carried_start.py" not in embedded_sources(PRESETS[preset], backend)
