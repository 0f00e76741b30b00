"""mixers/layout.py: inputs and selector sets by name, and the digest that ties a warm start to them."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from charstat import FormatError, Model
from charstat.cli import cli
from charstat.counting import build_model
from charstat.mixers import layout as layout_module
from charstat.mixers.layout import INPUTS, SELECTOR_SETS, Input, MixerLayout, MixerRates
from charstat.ngram.contexts import select_contexts


def contexts(names="default", order=8):
    return tuple(c for c in select_contexts(names, order) if c.name != "o0")


@pytest.mark.parametrize("experts", [0, 3, 40])
def test_columns_and_rows_do_not_overlap_and_leave_no_gap(experts):
    m = MixerLayout(contexts(), experts)
    columns = [at for group, first in zip(INPUTS, m.columns, strict=True) for at in range(first, first + group.count(m))]
    assert columns == list(range(m.inputs)) and m.inputs <= m.width < m.inputs + layout_module.LANES
    rows = [at for group, first in zip(SELECTOR_SETS, m.first_rows, strict=True) for at in range(first, first + group.rows(m))]
    assert rows == list(range(m.rows))


def test_the_table_is_what_the_mixture_has(model):
    stream = model.stream(experts=2)
    stream.reset()
    about = stream.layout.describe()
    assert stream.mixer.weights.shape == (about["rows"], about["width"])
    columns = {i["name"]: i["columns"] for i in about["inputs"]}
    assert columns.keys() == {i.name for i in INPUTS} and sum(columns.values()) == stream.layout.inputs
    assert columns["static"] == columns["online"] == len(stream.contexts) and columns["experts"] == 2
    assert columns["order_chain"] == columns["nested_chain"] == columns["word_chain"] == columns["match"] == columns["bias"] == 1
    for i in about["inputs"]:
        columns = slice(i["first_column"], i["first_column"] + i["columns"])
        assert (stream.mixer.weights[:128, columns] == np.float32(i["initial_weight"])).all()
        assert not stream.mixer.weights[128:, columns].any()


def test_every_selected_row_lies_in_its_set(model, held_out):
    stream = model.stream()
    stream.reset()
    sets = stream.layout.describe()["selector_sets"]
    seen = [set() for _ in sets]
    for c in held_out[:1500]:
        stream.predict_char()
        for j, selector_set in enumerate(sets[1:], 1):
            row = int(stream.state.selected[j])
            assert selector_set["first_row"] <= row < selector_set["first_row"] + selector_set["rows"]
            seen[j].add(row)
        stream.observe(c)
    assert all(len(rows) > 3 for selector_set, rows in zip(sets[1:], seen[1:], strict=True) if selector_set["name"] != "topic")


def test_the_digest_depends_on_whatever_gives_a_weight_its_meaning(monkeypatch):
    plain = MixerLayout(contexts()).digest()
    assert plain == MixerLayout(contexts(), experts=5).digest() == MixerLayout(contexts("default", 8)).digest()
    assert plain != MixerLayout(contexts("wide")).digest() and plain != MixerLayout(contexts("default", 9)).digest()
    one_more = (*INPUTS[:2], Input("another", "inserted, where padding hides it"), *INPUTS[2:])
    monkeypatch.setattr(layout_module, "INPUTS", one_more)
    assert plain != MixerLayout(contexts()).digest()
    monkeypatch.setattr(layout_module, "INPUTS", (*INPUTS[:2], INPUTS[3], INPUTS[2], *INPUTS[4:]))
    assert plain != MixerLayout(contexts()).digest()
    monkeypatch.undo()
    monkeypatch.setattr(layout_module, "SELECTOR_SETS", SELECTOR_SETS[:-1])
    assert plain != MixerLayout(contexts()).digest()


def test_a_warm_start_of_another_layout_is_refused(train_text):
    model = build_model(train_text[:20_000], order=3, held_out_chars=2000, threads=1)
    assert model.manifest["start"]["layout"] == model.stream().layout.digest()
    for wrong in ({"layout": "0" * 64}, {}):
        start = {**model.manifest["start"], **wrong}
        start = start if wrong else {k: v for k, v in start.items() if k != "layout"}
        other = Model({**model.manifest, "start": start}, model.all_columns)
        with pytest.raises(FormatError, match="build the model again"):
            other.stream()
        other.stream(warm_start=False).reset()


def test_rates_are_the_mixers_own(model):
    with pytest.raises(TypeError, match="MixerRates"):
        model.stream(rates=5)
    assert model.stream(rates=MixerRates(boost=1.0))._fixed.rates[1] == 1.0


def test_inspect_prints_both_tables(model, tmp_path):
    model.save(tmp_path / "m")

    def run(*args):
        return CliRunner().invoke(cli, ["inspect", str(tmp_path / "m"), *args])

    shown, result = run("--mixer"), json.loads(run("--mixer", "--json").stdout)
    assert shown.exit_code == 0 and all(group.name in shown.stdout for group in (*INPUTS, *SELECTOR_SETS))
    assert result == json.loads(json.dumps(model.stream().layout.describe()))
    assert run("--mixer", "--discounts").exit_code == 2
