"""mixers/warm_start.py and `charstat build --held-out`: a mixture that begins with what was learned from text held out of the counting."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from charstat import FormatError, Model, UserError
from charstat.alphabet import Alphabet
from charstat.cli import cli
from charstat.comparison import ablate
from charstat.counting import build_model, hold_out
from charstat.manifest import seal
from charstat.mixers.last_stage import new_maps
from charstat.mixers.layout import MixerLayout, MixerRates
from charstat.mixers.warm_start import pack

HELD_OUT = 12_000
OPTIONS = {"order": 5, "contexts": "o0,o1,o2,o3,o5,p,p.w1", "threads": 1}


@pytest.fixture(scope="module")
def text(train_text):
    return train_text[:80_000]


@pytest.fixture(scope="module")
def model(text):
    return build_model(text, held_out_chars=HELD_OUT, **OPTIONS)


@pytest.fixture(scope="module")
def directory(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("start") / "m"
    return build_model(text, held_out_chars=HELD_OUT, out=path, **OPTIONS)


@pytest.fixture(scope="module")
def another(english):
    return english[200_000:203_000]


def started(model, **options):
    stream = model.stream(**options)
    stream.reset()
    return stream


def test_what_is_held_out_is_not_counted(model, text):
    counted = build_model(text[:-HELD_OUT], **OPTIONS)
    assert all(np.array_equal(model.columns[name], counted.columns[name]) for name in counted.columns)
    assert model.manifest["text"] == counted.manifest["text"] and model.manifest["text"]["chars"] == len(text) - HELD_OUT
    assert (model.warm_start_chars, counted.warm_start_chars, counted.warm_start.size) == (HELD_OUT, 0, 0)
    assert model.manifest["start"]["text"]["chars"] == HELD_OUT
    assert "learn" in [phase["name"] for phase in model.manifest["build"]["phases"]]


def test_with_history(text):
    """What stands before the text is context of what is counted, and neither counted nor learned from."""
    history, shard = text[:9000], text[9000:30_000]
    options = {**OPTIONS, "models": ("mix", "ctw"), "alphabet": Alphabet.from_text(text), "history": history}
    model = build_model(shard, held_out_chars=3000, **options)
    counted = build_model(shard[:-3000], **options)
    assert all(np.array_equal(model.columns[name], counted.columns[name]) for name in counted.columns)
    assert np.array_equal(model.betas, counted.betas) and model.betas.size
    assert model.manifest["text"] == counted.manifest["text"] and model.manifest["text"]["history_chars"] == 9000
    cold = started(model, warm_start=False)
    cold.score(shard[-3000:])
    assert np.array_equal(pack(cold.mixer), model.warm_start)


def test_the_start_is_what_a_stream_learns_from_it(model, text):
    cold = started(model, warm_start=False)
    cold.score(text[-HELD_OUT:])
    assert np.array_equal(pack(cold.mixer), model.warm_start)
    warm = started(model).mixer
    for ours, theirs in zip(warm[:3], cold.mixer[:3], strict=True):
        assert np.array_equal(ours, theirs)
    assert np.array_equal(warm.maps, new_maps())  # the last stage starts anew


def test_it_pays_from_the_first_characters_on(model, another):
    warm, cold = started(model), started(model, warm_start=False)
    assert (warm.warm_start_chars, cold.warm_start_chars) == (HELD_OUT, 0)
    assert warm.score(another).mean() < cold.score(another).mean() - 0.02


def test_what_has_learned_long_moves_less(model, another):
    """The rate of the weights falls with the characters learned from, those of the start included."""
    young = {**model.manifest, "start": {**model.manifest["start"], "chars": 1}}
    moved = []
    for manifest in (model.manifest, young):
        stream = started(Model(manifest, model.all_columns))
        before = stream.mixer.weights.copy()
        stream.score(another[:100])
        moved.append(np.abs(stream.mixer.weights - before).sum())
    assert 2 * moved[0] < moved[1]


def test_reset_goes_back_to_the_start(model, another):
    stream = started(model)
    first = stream.guess_and_score(another)
    stream.reset()
    again = stream.guess_and_score(another[:1000])
    assert again[0] == first[0][:1000] and np.array_equal(again[1], first[1][:1000])
    assert np.array_equal(pack(started(model).mixer), model.warm_start)  # the model's own is never written to


def test_in_memory_on_disk_and_saved_again(model, directory, another, tmp_path):
    bits = started(model).score(another)
    for other in (directory, Model.load(directory.path), model.save(tmp_path / "a"), directory.save(tmp_path / "b")):
        assert other.start_chars == HELD_OUT and np.array_equal(other.start, model.warm_start)
        assert np.array_equal(started(other).score(another), bits)


def test_another_mixture_begins_cold(model, another):
    names = [c.name for c in model.contexts]
    assert started(model, contexts=[n for n in names if n != "o0"]).warm_start_chars == HELD_OUT  # o0 is not mixed by default
    for options in ({"contexts": names}, {"contexts": ["o3"]}, {"match": False}):
        assert started(model, **options).warm_start_chars == 0
    rows = list(ablate(model, another[:300]))
    cold = started(model, warm_start=False).score(another[:300])
    assert rows[0]["bits_per_char"] == pytest.approx(cold.mean())


def test_a_mixture_with_experts_begins_with_it_too(model, another):
    """Everything but the experts' own weights, also where they take the inputs beyond a row's padding."""
    plain = started(model)
    for experts in (1, 2, 40):
        stream = started(model, experts=experts)
        assert stream.warm_start_chars == HELD_OUT
        k = MixerLayout(stream.contexts).inputs
        assert np.array_equal(stream.mixer.weights[:, :k], plain.mixer.weights[:, :k])
        assert (stream.mixer.weights[:128, k : k + experts] == np.float32(MixerRates().initial_expert)).all()
        assert not stream.mixer.weights[:, k + experts :].any() and not stream.mixer.weights[128:, k:].any()
        assert np.array_equal(stream.mixer.logits, plain.mixer.logits) and np.array_equal(stream.mixer.match, plain.mixer.match)
        if experts == 1:  # and what it has learned from the experts it forgets again
            for char in another[:50]:
                stream.advise(np.full((1, 128), 1 / 128))
                stream.observe(char)
            stream.reset()
            assert np.array_equal(stream.mixer.weights, started(model, experts=1).mixer.weights)


def test_merging_drops_it(model, text):
    other = build_model(text[:20_000], alphabet=model.alphabet, **OPTIONS)
    merged = Model.merge(model, other)
    assert merged.warm_start_chars == 0 and "start" not in merged.manifest


@pytest.mark.parametrize("chars", [-1, 10, 11])
def test_nothing_left_to_count(chars):
    with pytest.raises(UserError, match="nothing would be left"):
        hold_out("0123456789", chars)
    with pytest.raises(UserError, match="nothing would be left" if chars > 0 else "a whole number from 0 up"):
        build_model("0123456789", held_out_chars=chars)


def test_holding_out():
    assert hold_out("abc", 0) == (3, "") and hold_out("abc", 1) == (2, "c") and hold_out("abc", 2) == (1, "bc")


@pytest.mark.parametrize("chars", [0, -3, 2**31, 10**30, "many", None, True])
def test_a_manifest_that_does_not_fit(directory, tmp_path, chars):
    copy = directory.save(tmp_path / "m")
    manifest = tmp_path / "m" / "manifest.json"
    about = json.loads(manifest.read_text())
    about["start"]["chars"] = chars
    manifest.write_bytes(seal(about))
    with pytest.raises(FormatError, match="start"):
        Model.load(copy.path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_a_start_that_nothing_learns(model, value):
    """Sums over it are not numbers, and no character is the likeliest then."""
    start = model.warm_start.copy()
    start[1] = value
    with pytest.raises(FormatError, match=r"start\.npy holds values"):
        Model(model.manifest, {**model.all_columns, "start": start})


def test_a_start_of_another_mixer(model):
    columns = {**model.all_columns, "start": model.warm_start[:-1]}
    with pytest.raises(FormatError, match="build the model again"):
        started(Model(model.manifest, columns))


def test_on_the_command_line(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text(text[:30_000], encoding="utf-8")

    def run(*args, code=0):
        result = CliRunner().invoke(cli, [str(a) for a in args])
        assert result.exit_code == code, result.output
        return result

    result = json.loads(run("build", "--data", "t.txt", "--order", 3, "--held-out", 5000, "--json").stdout)
    counted = result["chars"]
    assert result["warm_start_chars"] == 5000 and result["out"] == "models/t-o3-held-out-5000"
    assert "5,000 held-out characters" in " ".join(run("inspect").stdout.split())
    evaluated = run("eval", "--chars", 200, "--gate", 0).stdout
    assert "the mixture has a warm start, learned from 5,000 held-out characters" in " ".join(evaluated.replace("│", " ").split())
    both = run("eval", "--chars", 200, "--gate", 0, "--models", "mix,match", "--ablate", "--json")
    assert any("except in the table of sources" in note for note in json.loads(both.stdout)["notes"])
    assert json.loads(run("eval", "--chars", 200, "--gate", 0, "--models", "match", "--json").stdout)["notes"] == []
    assert math.isclose(result["chars_per_s"] * result["seconds"], counted)
    useless = run("build", "--data", "t.txt", "--order", 3, "--models", "ppm,match", "--held-out", 5000)
    assert useless.stderr.startswith("--held-out: only mix and advised use the warm start") and useless.stderr.count("\n") == 1
    plain = json.loads(run("build", "--data", "t.txt", "--order", 3, "--json").stdout)
    assert plain["chars"] == counted + 5000 and plain["warm_start_chars"] == 0
    assert "nothing would be left" in run("build", "--data", "t.txt", "--held-out", 30_000, code=2).stderr
