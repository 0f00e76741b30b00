"""ctw/weights.py and ctw/links.py: every beta against the definition, hashed orders included; threads, borders, models that were saved."""

import json
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner
from ctw_oracle import count_contexts, identity_of, node_betas, stored_betas
from hypothesis import given
from hypothesis import strategies as st

import charstat
from charstat import ContextError, FormatError, Model, build_model, evaluate
from charstat.alphabet import Alphabet
from charstat.cli import cli
from charstat.cpu.backend import CPUBackend
from charstat.ctw import CTW_TUNED, ContextTreeWeighting
from charstat.ctw.links import parent_links
from charstat.ctw.weights import UNITS_PER_NAT, gamma_table, log_estimate, n_slots, weigh_text
from charstat.manifest import FORMAT_VERSION, seal
from charstat.ngram.contexts import select_contexts

PROSE = "The European lobster ( Homarus gammarus ) is a species of clawed lobster , 60 cm long .\nIt is a lobster , too . " * 2
HASHED = "o0,o1,o2,o9,o12"
CHAINS = ["o0,o1,o2,o3", "o0,o2,o8,o9", HASHED, "o0,o10,o12,o17,o24"]


def counted(text, contexts, border=0, order=8):
    """(the text's symbols, its tables, rising, the tree)."""
    model = build_model(
        text[border:], contexts=contexts, order=order, history=text[:border], alphabet=Alphabet.from_text(text), backend="cpu"
    )
    tables = sorted(model.tables.values(), key=lambda table: table.context.param)
    return model.alphabet.encode(text), tables, model.alphabet.tree.arrays


def weights_of(symbols, tables, tree, border=0, alpha=0.2, threads=1):
    return dict(weigh_text(reversed(tables), symbols, border, tree, alpha, threads))


def check(text, contexts, border=0, alpha=0.2):
    symbols, tables, tree = counted(text, contexts, border)
    orders = [table.context.param for table in tables]
    expected = node_betas(symbols, border, orders, tree, alpha)
    found = weights_of(symbols, tables, tree, border, alpha)
    assert list(found) == [table.context.name for table in reversed(tables[:-1])]
    contexts_of = count_contexts([int(s) for s in symbols], border, orders)
    for table in tables[:-1]:
        betas = found[table.context.name]
        assert betas.dtype == np.float32 and betas.size == n_slots(table)
        got = stored_betas(table, betas, tree, contexts_of[table.context.param])
        want = expected[table.context.param]
        assert got.keys() == want.keys()
        for key, beta in want.items():
            assert got[key] == pytest.approx(min(max(beta, 1e-15), 1e15), rel=3e-7), (table.context.name, key)


@pytest.mark.parametrize("contexts", CHAINS)
@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_every_beta_by_its_definition(contexts, alpha):
    check(PROSE[:160], contexts, alpha=alpha)


@given(
    text=st.text("abcdefg", min_size=1, max_size=60) | st.text("aA1 \n-é", min_size=1, max_size=60),
    contexts=st.sampled_from(CHAINS),
    border=st.integers(0, 20),
)
def test_every_beta_of_any_short_text(text, contexts, border):
    check(text, contexts, min(border, len(text) - 1))


@pytest.mark.parametrize("text", ["a", "ab", "a" * 300, "ab" * 200, "".join(chr(0x100 + i) for i in range(300)) * 2])
@pytest.mark.parametrize("contexts", ["o0,o1,o2", HASHED])
def test_tiny_and_odd_texts(text, contexts):
    check(text, contexts)


def test_links_are_the_endings():
    symbols, tables, _ = counted(PROSE, "o0,o2,o5,o9,o11")
    for shorter, longer in pairwise(tables):
        order = longer.context.param
        links = parent_links(longer, shorter, symbols, 0, 2)
        own, other = ({int(x): i for i, x in enumerate(t.context_identities())} for t in (longer, shorter))
        assert links.dtype == np.uint32 and links.size == longer.n_contexts
        for t in range(order, symbols.size):
            context = tuple(int(s) for s in symbols[t - order : t])
            assert links[own[identity_of(context)]] == other[identity_of(context[order - shorter.context.param :])]


def test_links_of_another_text():
    symbols, tables, _ = counted(PROSE, "o0,o9,o11")
    with pytest.raises(ValueError, match="o11 that end in no context of o9: the tables were counted from another text"):
        parent_links(tables[2], tables[1], symbols[:50], 0, 2)


@pytest.mark.parametrize("contexts", [CHAINS[0], HASHED, "o0,o1,o2,o3,o4,o5,o6,o8,o11,o14"])
def test_threads_change_nothing(english, contexts):
    symbols, tables, tree = counted(english[:30_000], contexts)
    one = weights_of(symbols, tables, tree)
    for threads in (2, 5):
        many = weights_of(symbols, tables, tree, threads=threads)
        assert one.keys() == many.keys() and all(np.array_equal(one[name], many[name]) for name in one)


def test_history_is_context_only(english):
    """The sum over a text after a border: as if the counts of the history were taken away, its contexts not."""
    check(english[:150], HASHED, border=70)


def test_large_counts():
    """Beyond the table of log gamma: Stirling's series goes on where the table ends, and 20,000 equal characters have their sums."""
    gammas = gamma_table(0.2)
    for n in (4094, 4095, 4096, 4097, 100_000):
        below, above = log_estimate(n, 3, 0.2, gammas), log_estimate(n + 1, 3, 0.2, gammas)
        assert above - below == pytest.approx(np.log((n + 0.2) / (n + 3.4)), abs=1e-9)
    check("ab" + "a" * 20_000, "o0,o1,o9,o11")
    assert 2**63 / UNITS_PER_NAT >= 2 * 2**31  # nats, for 2**31 characters


TRAINED = PROSE * 3


@pytest.fixture(scope="module")
def model():
    return build_model(TRAINED, order=11, models=("ctw",), backend="cpu", threads=2)


def test_the_build_stores_them(model):
    assert model.models == ("ctw",) and model.manifest["preset"] == "chars"
    assert model.weights.alpha == CTW_TUNED["alpha"]
    assert list(model.weights.levels) == ["o0", "o1", "o2", "o3", "o4", "o5", "o6", "o8"]
    assert "weights" in [phase["name"] for phase in model.manifest["build"]["phases"]]
    tables = sorted(model.tables.values(), key=lambda table: -table.context.param)
    symbols = model.alphabet.encode(TRAINED)
    for name, betas in weigh_text(tables, symbols, 0, model.alphabet.tree.arrays, CTW_TUNED["alpha"], 1):
        at, size = model.weights.levels[name]
        assert np.array_equal(model.betas[at : at + size], betas)
    assert model.n_bytes == sum(a.nbytes for a in model.columns.values()) + model.betas.nbytes


def test_stored_ones_are_used_where_they_fit(model):
    stream = model.char_model()
    assert isinstance(stream, ContextTreeWeighting) and stream.weights_from == "model"
    assert ContextTreeWeighting(model, **CTW_TUNED, max_order=20).weights_from == "model"
    assert ContextTreeWeighting(model, **CTW_TUNED, max_order=8).weights_from == "tables"
    assert ContextTreeWeighting(model, **{**CTW_TUNED, "alpha": 0.15}).weights_from == "tables"
    assert ContextTreeWeighting(model).weights_from == "tables"
    for max_order in (8, 5):  # all levels of these are exact
        short = build_model(TRAINED, order=max_order, models=("ctw",), backend="cpu")
        a, b = short.char_model("ctw"), ContextTreeWeighting(model, **CTW_TUNED, max_order=max_order)
        assert (a.weights_from, b.weights_from) == ("model", "tables")
        a.reset(), b.reset()
        assert (a.score(PROSE) == b.score(PROSE)).all()


def test_weights_of_hashed_orders_count(model):
    """With static weights everywhere, what comes first is what the training text says, whatever was not yet observed online."""
    with_text, without = model.char_model(), ContextTreeWeighting(build_model(TRAINED, order=11, contexts="chars"), **CTW_TUNED)
    assert without.weights_from == "tables" and (without._beta_at >= 0).sum() == 7 and (with_text._beta_at >= 0).sum() == 8
    with_text.reset(), without.reset()
    assert with_text.score(PROSE[:60]).sum() < without.score(PROSE[:60]).sum()


def test_saved_loaded_and_merged(model, tmp_path):
    bits = evaluate(model.char_model(), PROSE[:80]).bits
    saved = model.save(tmp_path / "m")
    built = build_model(TRAINED, order=11, models=("ctw",), backend="cpu", out=tmp_path / "b")
    for other in (saved, Model.load(tmp_path / "m"), built):
        assert other.weights == model.weights and np.array_equal(other.betas, model.betas) and other.models == ("ctw",)
        stream = other.char_model()
        assert stream.weights_from == "model" and (evaluate(stream, PROSE[:80]).bits == bits).all()
    alphabet = model.alphabet
    parts = [TRAINED[:300], TRAINED[300:]]
    left = build_model(parts[0], order=11, models=("ctw",), alphabet=alphabet, backend="cpu")
    right = build_model(parts[1], order=11, models=("ctw", "ppm"), alphabet=alphabet, history=parts[0], backend="cpu")
    merged = Model.merge(left, right)
    assert merged.weights is None and merged.betas.size == 0 and merged.models == ("ctw", "ppm")
    assert merged.char_model().weights_from == "tables"
    assert Model.merge(left, right, out=tmp_path / "merged").weights is None


def break_manifest(path, change):
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_bytes(seal(manifest))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("ctw"),
        lambda m: m["ctw"].pop("alpha"),
        lambda m: m["ctw"].update(alpha=0),
        lambda m: m["ctw"].update(levels=[]),
        lambda m: m["ctw"]["levels"].pop("o8"),
        lambda m: m["ctw"]["levels"].update(o11=[0, 5]),
        lambda m: m["ctw"]["levels"].update(o1=[0, 5]),
        lambda m: m["ctw"]["levels"]["o1"].reverse(),
        lambda m: m["ctw"]["levels"]["o2"].append(1),
        lambda m: m.update(models=[]),
        lambda m: m.update(models="ctw"),
        lambda m: m.update(models=[1]),
        lambda m: m.update(ctw=7),
    ],
)
def test_damaged_manifests(model, tmp_path, change):
    model.save(tmp_path / "m")
    break_manifest(tmp_path / "m", change)
    with pytest.raises(FormatError, match="the manifest of .* is damaged"):
        Model.load(tmp_path / "m")


def test_an_earlier_format(model, tmp_path):
    model.save(tmp_path / "m")
    break_manifest(tmp_path / "m", lambda m: m.update(format_version=1))
    with pytest.raises(FormatError, match=f"format version 1; this charstat reads version {FORMAT_VERSION}: build it again"):
        Model.load(tmp_path / "m")


def test_models_that_are_built_for(english):
    text = english[:20_000]
    assert build_model(text, order=4, models=("match",)).contexts == select_contexts("o0", 4)
    assert build_model(text, order=4, models=("ppm", "match")).manifest["preset"] == "chars"
    advised = build_model(text, order=4, models=("mix", "advised"), contexts="o0,o1,o2,p")
    assert advised.weights is not None and advised.models == ("mix", "advised")
    assert build_model(text, order=4).weights is None
    assert type(build_model(text, order=4, models=("kneser-ney",)).char_model()).__name__ == "KneserNey"
    assert build_model(text, order=4, models="kneser-ney, ppm").models == ("kneser-ney", "ppm")
    with pytest.raises(ContextError, match="there is no model 'lstm'"):
        build_model(text, models=("lstm",))
    with pytest.raises(ContextError, match="ctw reads the character orders from o0 up"):
        build_model(text, models=("ctw",), contexts="o1,o2")
    with pytest.raises(ContextError, match="there is no model 'lstm'"):
        advised.char_model("lstm")


def test_order_zero_alone():
    model = build_model("abracadabra", contexts="o0", models=("ctw",))
    assert model.weights.levels == {} and model.char_model().weights_from == "model"
    assert evaluate(model.char_model(), "abra").bits_per_char < 4


def test_the_cpu_backend_weighs_in_one_phase(model):
    tables = sorted(model.tables.values(), key=lambda table: -table.context.param)
    phases = []

    class Phase:
        def __init__(self, name):
            phases.append(name)

        __enter__ = __exit__ = lambda self, *_: None

    found = dict(CPUBackend(2).weigh(tables, model.alphabet.encode(TRAINED), 0, model.alphabet.tree.arrays, 0.2, Phase))
    assert phases == ["weights"] and list(found) == ["o8", "o6", "o5", "o4", "o3", "o2", "o1", "o0"]


def run(*args, code=0):
    """Run the command in this process."""
    result = CliRunner().invoke(cli, [str(a) for a in args])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def workplace(tmp_path, monkeypatch, english):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(english[:40_000], encoding="utf-8")
    return tmp_path


def test_command_line(workplace):
    built = json.loads(run("build", "--data", "text.txt", "--order", 9, "--models", "ctw,ppm", "--threads", 2, "--json").stdout)
    assert built["out"] == "models/text-o9-ctw-ppm" and built["preset"] == "chars" and built["models"] == ["ctw", "ppm"]
    assert built["weights"]["levels"] == ["o0", "o1", "o2", "o3", "o4", "o5", "o6", "o8"] and built["weights"]["bytes"] > 0
    assert "weights" in [phase["name"] for phase in built["phases"]]
    evaluated = json.loads(run("eval", "--chars", 300, "--gate", 0, "--json").stdout)
    stream = Model.load(built["out"]).char_model("ctw")
    text = (workplace / "text.txt").read_text(encoding="utf-8")
    assert evaluated["char_model"] == "ctw" and evaluated["passed"] and "curve" in evaluated
    val = charstat.open_corpus("text.txt").text("val", 300)
    assert val in text and evaluated["bits_per_char"] == evaluate(stream, val).bits_per_char
    shown = run("eval", "--chars", 300, "--gate", 0).stdout
    assert "Predicted by" in shown and "ctw: context-tree weighting" in shown
    looked = run("inspect").stdout
    assert "ctw, ppm" in looked and "o0 to o8, alpha 0.3" in looked
    assert json.loads(run("inspect", "--json").stdout)["weights"]["alpha"] == 0.3
    both = json.loads(run("eval", "--chars", 300, "--gate", 0, "--models", "ctw,mix", "--json").stdout)
    assert [row["model"] for row in both["models"]] == ["ctw", "mix"] and both["char_model"] is None
    assert both["models"][0]["bits_per_char"] == evaluated["bits_per_char"]
    assert run("eval", "--chars", 300, "--gate", 0.99, code=4)


def test_command_line_default_places(workplace):
    def out(*args):
        return json.loads(run("build", "--data", "text.txt", "--order", 2, "--limit", 2000, *args, "--json").stdout)["out"]

    assert out("--models", "kneser-ney") == "models/text-o2-kneser-ney-first-2000"
    assert out("--models", "match") == "models/text-o2-match-first-2000"
    assert out("--models", "ppm", "--contexts", "default") == "models/text-o2-ppm-default-first-2000"
    assert out("--contexts", "default") == out() == "models/text-o2-first-2000"
    plain = run("eval", "--model", "models/text-o2-first-2000", "--chars", 100, "--gate", 0).stdout
    assert "Predicted by" not in plain
    assert json.loads(run("eval", "--model", "models/text-o2-match-first-2000", "--chars", 100, "--gate", 0, "--json").stdout)["order"] == 0


@pytest.mark.parametrize("args", [("--models", "lstm"), ("--models", ""), ("--models", "ctw", "--contexts", "o1,o2")])
def test_command_line_mistakes(workplace, args):
    result = run("build", "--data", "text.txt", *args, code=2)
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("error: ") and not (workplace / "models").exists()


def test_progress_has_a_place_for_weights(workplace):
    seen = []
    build_model("abracadabra" * 9, order=9, models=("ctw",), backend="cpu", progress=seen.append)
    assert [p.phase for p in seen if p.phase.startswith("weights")] == ["weights", *(f"weights o{k}" for k in (8, 6, 5, 4, 3, 2, 1, 0))]
    assert seen[-1].done == seen[-1].total and [p.done for p in seen] == sorted(p.done for p in seen)
