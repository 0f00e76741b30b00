"""comparison.py, mixers/combine.py and `charstat eval --models`: models side by side, experts, ablation."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from charstat import evaluate
from charstat.cli import cli
from charstat.comparison import ablate, compare
from charstat.counting import build_model
from charstat.mixers.combine import AdvisedMixture
from charstat.ngram.interpolated import KneserNey
from charstat.ppm import InheritingPPM
from charstat.registry import MODELS


@pytest.fixture(scope="module")
def model(train_text):
    return build_model(train_text[:40_000], order=4, contexts="o0,o1,o2,o3,o4,p,p.w1", threads=1)


@pytest.fixture(scope="module")
def text(english):
    return english[200_000:201_500]


@pytest.fixture
def advised(model):
    return AdvisedMixture(model.stream(experts=2), [InheritingPPM(model), KneserNey(model)])


def test_experts_char_by_char_and_in_one_go(advised, text):
    advised.reset()
    guesses, bits = advised.guess_and_score(text)
    advised.reset()
    one_by_one = []
    for char, guess in zip(text, guesses, strict=True):
        p = advised.predict()
        assert advised.predict_char() == guess
        one_by_one.append(p[char])
        advised.observe(char)
    assert np.array_equal(-np.log2(one_by_one), bits)
    advised.reset()
    assert np.array_equal(advised.score(text), bits)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "advised"])
def test_distributions_are_those_of_each_step(model, text, name):
    stream = model.char_model(name)
    stream.reset()
    rows = stream.distributions(text[:300] + "戦")
    after = stream.probabilities()
    stream.reset()
    for row, char in zip(rows, text[:300] + "戦", strict=True):
        assert np.array_equal(row, stream.probabilities())
        stream.observe(char)
    assert np.array_equal(after, stream.probabilities())
    stream.reset()
    assert np.array_equal(stream.distributions(text[:50], rows[:50]), rows[:50])


def test_experts_of_other_makes(model, text):
    """An expert that is no model of ours is asked character by character."""

    class Foreign:
        def __init__(self):
            self.inner = InheritingPPM(model)
            self.reset, self.observe, self.probabilities = self.inner.reset, self.inner.observe, self.inner.probabilities

    scores = []
    for make in (Foreign, lambda: InheritingPPM(model)):
        stream = AdvisedMixture(model.stream(experts=1), [make()])
        stream.reset()
        scores.append(stream.score(text[:400]))
    assert np.array_equal(*scores)


@pytest.mark.parametrize("name", MODELS)
def test_keep_learning_forgets_only_the_context(model, text, name):
    stream = model.char_model(name)
    stream.reset(keep_learning=True)  # nothing was learned yet: the same as reset()
    first = stream.score(text)
    stream.reset(keep_learning=True)
    start = stream.predict()
    second = stream.score(text)
    if name == "kneser-ney":
        assert np.array_equal(second, first)
    else:
        assert second.mean() < 0.75 * first.mean()  # what it saw the first time is known
    stream.reset(keep_learning=True)
    if name == "kneser-ney":
        assert stream.predict() == start
    stream.reset()
    assert np.array_equal(stream.score(text), first)


@pytest.mark.parametrize("name", ["ppm", "ppmc", "ppm-inherit", "ctw", "kneser-ney"])
def test_a_kept_stream_starts_without_context(model, text, name):
    """With nothing learned online, the start of the second text is the start of the first."""
    stream = model.char_model(name) if name == "kneser-ney" else type(model.char_model(name))(model, online=False)
    stream.reset()
    first = stream.score(text[:200])
    stream.reset(keep_learning=True)
    if name != "ppm-inherit":  # its escape estimates go on learning
        assert np.array_equal(stream.score(text[:200]), first)
    assert abs(stream.probabilities().sum() - 1.0) < 1e-9


def test_observing_without_predicting_is_the_same(advised, text):
    advised.reset()
    for char in text[:300]:
        advised.observe(char)
    after = advised.predict()
    advised.reset()
    advised.score(text[:300])
    assert advised.predict() == after


def test_the_mixture_is_told_by_its_experts(model, advised, text):
    """An expert that knows the text is soon believed, and one whose weight is learned costs little when it knows nothing."""
    plain = evaluate(model.stream(), text)
    symbols = model.alphabet.encode(text)
    oracle = np.full((len(text), 1, 128), 1e-4)
    oracle[np.arange(len(text)), 0, symbols] = 1.0 - 127e-4
    stream = model.stream(experts=1)
    stream.reset()
    assert stream.score(text, oracle)[500:].mean() < 0.5 * plain.bits[500:].mean()
    stream.reset()
    noise = np.random.default_rng(1).dirichlet(np.ones(128), (len(text), 1))
    assert stream.score(text, noise).mean() < plain.bits_per_char + 0.1
    assert evaluate(advised, text).bits_per_char < plain.bits_per_char


def test_wrong_number_of_experts(model):
    with pytest.raises(ValueError, match="expects 1 experts, not 2"):
        AdvisedMixture(model.stream(experts=1), [KneserNey(model), KneserNey(model)])


def test_compare_all_models(model, text):
    rows = list(compare(model, list(MODELS), text, gate=0.2))
    assert [row["model"] for row in rows] == list(MODELS)
    assert all(np.isfinite(row["bits_per_char"]) and 0 < row["accuracy"] < 1 and row["chars_per_s"] > 0 for row in rows)
    by_name = {row["model"]: row for row in rows}
    assert by_name["mix"]["bits_per_char"] == evaluate(model.stream(), text).bits_per_char
    assert by_name["mix"]["bits_per_char"] < min(by_name[n]["bits_per_char"] for n in ("ppm", "ppmc", "ctw", "kneser-ney", "match"))
    assert all(row["passed"] == (row["accuracy"] >= 0.2) for row in rows)


def test_ablation_drops_every_source(model, text):
    rows = list(ablate(model, text))
    mixed = [c.name for c in model.stream().contexts]
    assert [row["source"] for row in rows] == ["mixture", *(f"- {n}" for n in mixed), "- match", "+ ppm-inherit", "+ ctw", "+ kneser-ney"]
    base = rows[0]
    without_words = next(row for row in rows if row["source"] == "- p.w1")
    assert without_words["worth_bits"] == without_words["bits_per_char"] - base["bits_per_char"]
    assert without_words["bits_per_char"] == evaluate(model.stream(contexts=[n for n in mixed if n != "p.w1"]), text).bits_per_char


def test_ablation_of_tables_that_the_experts_cannot_read(text):
    model = build_model(text * 9, contexts="o2,p.w1")
    assert [row["source"] for row in ablate(model, text[:200])] == ["mixture", "- o2", "- p.w1", "- match"]


def test_progress_goes_by_characters(model, text):
    text = text * 3  # more than one block
    told = []
    list(compare(model, ["kneser-ney", "match"], text, 0.5, told.append))
    half = len(told) // 2
    assert half > 1 and told[:half] == told[half:] == sorted(set(told)) and told[-1] == len(text)
    told = []
    rows = list(ablate(model, text, lambda done, total: told.append((done, total))))
    done = [d for d, _ in told]
    assert done == sorted(done) and len(set(done)) > len(rows) + 1
    assert {total for _, total in told} == {(len(rows) + 1) * len(text)} == {done[-1]}


@pytest.mark.parametrize("name", ["ctw", "advised"])
def test_what_the_tables_do_not_allow_is_told_before_anything_is_predicted(name, text, tmp_path, monkeypatch):
    build_model(text * 9, contexts="o2,p.w1", out=tmp_path / "m")
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    monkeypatch.setattr("charstat.comparison.compare", lambda *_: pytest.fail("a model was compared"))
    args = ["eval", "--model", str(tmp_path / "m"), "--data", str(tmp_path / "text.txt"), "--models", f"mix,{name}"]
    run = CliRunner().invoke(cli, args)
    assert run.exit_code == 2 and run.stderr.startswith(f"error: {name} reads the character orders from o0 up, and o0 is missing")


def test_command_line(model, english, tmp_path):
    (tmp_path / "text.txt").write_text(english[:60_000], encoding="utf-8")
    model.save(tmp_path / "m")
    args = ["eval", "--model", str(tmp_path / "m"), "--data", str(tmp_path / "text.txt"), "--chars", "800", "--gate", "0.1"]
    run = CliRunner().invoke(cli, [*args, "--models", "kneser-ney,mix", "--json"])
    assert run.exit_code == 0, run.output
    result = json.loads(run.stdout)
    assert [row["model"] for row in result["models"]] == ["kneser-ney", "mix"]
    assert result["passed"] and "ablation" not in result
    shown = CliRunner().invoke(cli, [*args, "--models", "mix", "--ablate"])
    assert shown.exit_code == 0, shown.output
    assert "- p.w1" in shown.output and "Worth bits" in shown.output
    assert CliRunner().invoke(cli, [*args[:-1], "0.99", "--models", "mix"]).exit_code == 4
    lines = CliRunner(env={"COLUMNS": "80"}).invoke(cli, [*args, "--models", ",".join(MODELS)]).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for name, entry in MODELS.items():  # a line for its figures, one or two for what it is
        figures, what = (line for line in lines if line.startswith(f"│ {name} "))
        assert "MISSED by" in figures or "PASS" in figures
        assert entry.about.startswith(what.split("│")[2].strip())
    assert CliRunner().invoke(cli, [*args, "--models", "lstm"]).exit_code == 2
