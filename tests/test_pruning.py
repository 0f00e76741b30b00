"""pruning/ and packing/: what is cut first, that a budget is met, that what is left is a model, and that the packed form loses nothing."""

import json
import math
import os
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from charstat.cli import cli
from charstat.counting import CountingPlan, SizeLimits, build_model
from charstat.errors import ArgumentError, ContextError, FormatError, MergeError, UserError
from charstat.model import Model
from charstat.ngram.contexts import parse_context
from charstat.ngram.hashing import low_symbols, mix57, unmix57
from charstat.packing import form
from charstat.pruning import spans, worth
from charstat.pruning.cut import Cut, prune
from charstat.pruning.levels import MAPPED_COSTS, weigh

READERS = ("mix", "ppm", "ppmc", "ppm-inherit", "match")
TINY = "the cat sat on the mat, and the rat sat on the cat; the cat ate the rat.\n" * 3 + "a mad dog, a sad cat\n"


def files_of(path: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(path.iterdir())}


def size_of(path: Path) -> int:
    return sum(len(data) for data in files_of(path).values())


def rows_of(model: Model, name: str) -> dict[int, dict[int, int]]:
    """{identity: {symbol or word: count}} of a table."""
    table = model.tables[name]
    starts, symbols, counts = table.starts().tolist(), table.symbols().tolist(), table.counts().tolist()
    return {
        identity: dict(zip(symbols[a:b], counts[a:b], strict=True))
        for identity, a, b in zip(table.context_identities().tolist(), starts[:-1], starts[1:], strict=True)
    }


@pytest.fixture(scope="module")
def model(train_text):
    """With a hashed context of characters, too, which the default ones lack at order 8."""
    return build_model(train_text, order=8, contexts="default,c14,p.shapes", threads=1)


@pytest.fixture(scope="module")
def mapped(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pruned") / "mapped"
    prune(model, out=path, max_bytes=500_000, packed=False)
    return path


@pytest.fixture(scope="module")
def packed(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pruned") / "packed"
    prune(model, out=path, max_bytes=120_000)
    return path


# What goes first.


def discounts_twin(counts):
    """Modified Kneser-Ney's D1, D2, D3+ from Chen and Goodman's formulas."""
    n = Counter(counts)
    y = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
    raw = [r - (r + 1) * y * n[r + 1] / n[r] if n[r] and n[r + 1] else y for r in (1, 2, 3)]
    return [d if 0 < d < r else y for r, d in zip((1, 2, 3), raw, strict=True)]


def worth_twin(text, order, shorter_share, context_bytes, row_bytes):
    """{(context, symbol): log2 of its worth} of one order of a text, from strings: Stolcke's criterion with Witten and Bell's smoothing.

    shorter_share(context, symbol): p' of the shorter context. Also returns the shares of this order.
    """
    found = defaultdict(Counter)
    for i in range(order, len(text)):
        found[text[i - order : i]][text[i]] += 1
    contexts = discounts_twin([sum(c.values()) for c in found.values()])
    rows = discounts_twin([c for counts in found.values() for c in counts.values()])

    def uses(count, discounts):
        return count - discounts[min(count, 3) - 1]

    values, shares = {}, {}
    for context, counts in found.items():
        n, d = sum(counts.values()), len(counts)
        p = {s: (c + d * shorter_share(context, s)) / (n + d) for s, c in counts.items()}
        shares |= {(context, s): p[s] for s in p}
        gain = sum(p[s] * math.log2(p[s] / shorter_share(context, s)) for s in p)
        left = 1 - sum(p.values())
        if left > 1e-12 and sum(shorter_share(context, s) for s in p) < 1:
            gain += left * math.log2(d / (n + d))
        own = uses(n, contexts) * gain / (context_bytes + row_bytes * d)
        for s, c in counts.items():
            kept = math.log2((c + d * shorter_share(context, s)) / (d * shorter_share(context, s)))
            row = worth.ROW_CREDIT * uses(c, rows) * kept / row_bytes
            values[context, s] = math.log2(min(max(own, 1e-30), row))
    return values, shares


def test_criterion_is_its_slow_twin():
    model = build_model(TINY, order=2, contexts="o0,o1,o2", threads=1)
    used = len(set(TINY))
    _, p0 = worth_twin(TINY, 0, lambda context, s: 1 / used, 9.5, 4)
    first, p1 = worth_twin(TINY, 1, lambda context, s: p0["", s], 9.5, 4)
    second, _ = worth_twin(TINY, 2, lambda context, s: p1[context[1:], s], 9.5, 4)
    for (context, s), value in second.items():  # a shorter context's row is worth no less
        first[context[1:], s] = max(first[context[1:], s], value)
    levels = weigh(model, MAPPED_COSTS)
    symbol_of = model.alphabet.symbol_of
    assert (levels.tables["o0"].levels == worth.HIGHEST).all()
    for name, wanted in (("o1", first), ("o2", second)):
        table = levels.tables[name].table
        found = []
        for i, (a, b) in enumerate(zip(table.starts()[:-1].tolist(), table.starts()[1:].tolist(), strict=True)):
            found += [
                (i, s, level) for s, level in zip(table.symbols()[a:b].tolist(), levels.tables[name].levels[a:b].tolist(), strict=True)
            ]
        wanted_levels = sorted((symbol_of[s], max(1, math.floor(v * worth.STEPS) + worth.MIDDLE)) for (_, s), v in wanted.items())
        found_levels = sorted((s, level) for _, s, level in found)
        assert len(found_levels) == len(wanted_levels)
        for (s, level), (wanted_s, wanted_level) in zip(found_levels, wanted_levels, strict=True):
            assert s == wanted_s
            assert abs(level - wanted_level) <= 2  # shares are float32


def test_words_have_the_level_of_their_best_row(model):
    levels = weigh(model, MAPPED_COSTS)
    best = defaultdict(int)
    for name, found in levels.tables.items():
        if parse_context(name).is_words:
            for word, level in zip(found.table.rows.tolist(), found.levels.tolist(), strict=True):
                best[word] = max(best[word], level)
    assert [best[word] for word in range(model.vocabulary.size)] == levels.words.tolist()


def test_sizes_at_levels_are_those_of_what_is_written(model):
    cut = Cut(model, 400_000, 1, False)
    small = prune(model, max_bytes=400_000, packed=False)
    tables = ("buckets", "records", "rows", "sums", "first_child", "trie_symbol", "first_id")
    assert sum(small.columns[name].nbytes for name in tables) == cut.levels.mapped_bytes(cut.level)
    assert small.vocabulary.size < model.vocabulary.size


def test_spans_and_files_change_nothing(model, tmp_path, monkeypatch):
    wanted = weigh(model, MAPPED_COSTS, 2)
    monkeypatch.setattr(spans, "SPAN_ROWS", 700)
    monkeypatch.setattr(spans, "SMALL_BYTES", 0)
    assert len(list(spans.spans(model.tables["o3"]))) > 10
    for scratch, threads in ((spans.Scratch(), 3), (spans.Scratch(tmp_path), 2)):
        found = weigh(model, MAPPED_COSTS, 2, scratch=scratch, threads=threads)
        assert np.array_equal(found.words, wanted.words) and np.array_equal(found.nodes_at, wanted.nodes_at)
        for name, one in found.tables.items():
            for mine, theirs in zip(one[1:], wanted.tables[name][1:], strict=True):
                assert np.array_equal(mine, theirs), name
    assert not list(tmp_path.iterdir())


def test_longer_orders_rows_are_in_the_shorter_ones(mapped):
    small = Model.load(mapped)
    orders = [c.param for c in small.contexts if c.name.startswith("o")]
    for shorter, longer in pairwise(orders):
        known = rows_of(small, f"o{shorter}")
        for identity, rows in rows_of(small, f"o{longer}").items():
            parent = int(mix57(low_symbols(np.uint64(unmix57(np.uint64(identity))), shorter)))
            assert set(rows) <= set(known[parent])


def test_min_count(model):
    small = prune(model, min_count=5)
    for name, table in small.tables.items():
        kept = {i: rows for i, rows in rows_of(model, name).items() if sum(rows.values()) >= 5 or name == "o0"}
        assert rows_of(small, name) == kept or table.context.is_words  # words that no row names are gone, and ids with them
        if table.context.is_words:
            assert table.n_contexts == len(kept) and table.total() == sum(sum(rows.values()) for rows in kept.values())
    assert small.manifest["pruned"]["min_count"] == 5 and small.manifest["pruned"]["max_bytes"] is None


# What is left is a model.


def test_budget_is_met_and_nearly_used(mapped, packed):
    assert 490_000 <= size_of(mapped) <= 500_000
    assert 115_000 <= size_of(packed) <= 120_000


@pytest.mark.parametrize("which", ["mapped", "packed"])
def test_loads_with_every_value_checked_and_adds_up_to_one(which, request, held_out):
    small = Model.load(request.getfixturevalue(which), verify="full")
    for name in READERS:
        stream = small.char_model(name)
        stream.reset()
        for row in stream.distributions(held_out[:120]):
            assert math.isclose(row.sum() + stream.unlisted_mass, 1.0, abs_tol=1e-9) or math.isclose(row.sum(), 1.0, abs_tol=1e-9)
    bits = small.stream()
    bits.reset()
    assert bits.score(held_out[:500]).mean() < 6.0


@pytest.mark.parametrize(("max_bytes", "form_name"), [(500_000, "mapped"), (120_000, "packed")])
def test_same_bytes_twice(model, tmp_path, request, max_bytes, form_name):
    prune(model, out=tmp_path / "again", max_bytes=max_bytes, packed=form_name == "packed")
    assert files_of(tmp_path / "again") == files_of(request.getfixturevalue(form_name))


def test_manifest_says_what_was_there(model, packed, tmp_path):
    about = Model.load(packed).manifest
    assert about["pruned"]["tables"]["o3"] == {"contexts": model.tables["o3"].n_contexts, "rows": model.tables["o3"].n_rows}
    assert about["pruned"]["words"] == model.vocabulary.size and about["pruned"]["coarse"] is True
    smaller = prune(Model.load(packed), out=tmp_path / "less", max_bytes=80_000)
    assert smaller.manifest["pruned"]["tables"] == about["pruned"]["tables"]
    assert size_of(tmp_path / "less") <= 80_000


def test_cost_and_warm_start_are_measured_on_held_out_text(train_text, held_out):
    whole = build_model(train_text[:40_000], order=4, threads=1, held_out_chars=500)
    small = prune(whole, max_bytes=400_000, packed=True, held_out=held_out)
    cost = small.manifest["pruned"]["held_out"]
    assert cost["chars"] == len(held_out) and cost["after"] > cost["before"]
    assert small.warm_start_chars == len(held_out) != whole.warm_start_chars
    assert small.stream().warm_start_chars == len(held_out)


def test_what_needs_all_counts_is_refused(mapped):
    small = Model.load(mapped)
    for name in ("ctw", "kneser-ney", "advised"):
        with pytest.raises(ContextError, match="needs all counts"):
            small.char_model(name)
    with pytest.raises(ContextError, match="needs all counts"):
        small.char_model("ppmc", update_exclusion=True)
    with pytest.raises(ContextError, match="ctw needs all counts"):
        CountingPlan.of(4, None, "ctw,ppm", size=SizeLimits.of(100_000, 1, None))


def test_merge_is_refused(model, mapped):
    with pytest.raises(MergeError, match="no longer whole: merge first"):
        Model.merge(model, Model.load(mapped))


@pytest.mark.parametrize("is_packed", [True, False])
def test_too_small_a_budget_names_the_least(model, tmp_path, is_packed):
    with pytest.raises(UserError, match=r"no model fits in 2,000 bytes: what cannot be cut takes ([\d,]+)") as e:
        prune(model, out=tmp_path / "m", max_bytes=2000, packed=is_packed)
    least = int(str(e.value).split("takes ")[1].split(" ")[0].replace(",", ""))
    prune(model, out=tmp_path / "m", max_bytes=least, packed=is_packed)
    assert size_of(tmp_path / "m") <= least
    assert list(Model.load(tmp_path / "m").tables) == list(model.tables)


def test_arguments(model, tmp_path):
    for options in ({"max_bytes": 0}, {"max_bytes": "16M"}, {"min_count": 0}, {"packed": 1}):
        with pytest.raises(ArgumentError):
            prune(model, **options)
    with pytest.raises(ArgumentError, match="a Model is what can be pruned"):
        prune("models/mine", max_bytes=1000)


@pytest.mark.parametrize("text", ["a", "a" * 3000, "戦–é" * 50, "no end", " \n \n"])
def test_odd_texts(text, tmp_path):
    model = build_model(text, order=3, threads=1)
    small = prune(model, out=tmp_path / "m", max_bytes=60_000, min_count=2, packed=True)
    loaded = Model.load(tmp_path / "m")
    stream = loaded.stream()
    stream.reset()
    assert np.isfinite(stream.score(text[:50])).all()
    assert small.n_rows <= model.n_rows


# The packed form.


def test_coarse_counts():
    counts = np.array([1, 2, 15, 16, 17, 19, 20, 1000, (1 << 25) - 1, (1 << 31) - 1], np.uint32)
    found = form.coarse(counts)
    assert found.tolist() == [1, 2, 15, 16, 16, 16, 20, 896, 7 << 22, 7 << 28]
    assert (form.coarse(found) == found).all()


def test_packed_form_alone_loses_nothing(train_text, tmp_path):
    whole = build_model(
        train_text[:40_000], order=5, threads=1, models=("mix", "ctw"), contexts="default,p.k1,p.topic,s1.3", held_out_chars=300
    )
    loaded = whole.save(tmp_path / "m", packed=True)
    again = Model.load(tmp_path / "m", verify="full")
    for name, values in whole.all_columns.items():
        assert np.array_equal(again.all_columns[name], values), name
        assert np.array_equal(loaded.all_columns[name], values), name
    assert not again.pruned and set(files_of(tmp_path / "m")) == {"manifest.json", "packed.bin"}
    assert size_of(tmp_path / "m") < 0.4 * whole.n_bytes
    again.save(tmp_path / "m")  # back, over the packed one
    assert "packed.bin" not in files_of(tmp_path / "m") and Model.load(tmp_path / "m").n_rows == whole.n_rows


def test_damaged_packed_models_are_refused(packed, tmp_path):
    files, rng = files_of(packed), np.random.default_rng(1)
    good = files["packed.bin"]
    target = tmp_path / "m"
    target.mkdir()
    (target / "manifest.json").write_bytes(files["manifest.json"])
    for data in (b"", good[:-1], good + b"\0", bytes([good[0] ^ 1]) + good[1:]):
        (target / "packed.bin").write_bytes(data)
        with pytest.raises(FormatError, match=r"packed\.bin"):
            Model.load(target)
    (target / "packed.bin").unlink()
    with pytest.raises(FormatError, match=r"packed\.bin is missing"):
        Model.load(target)
    manifest = json.loads(files["manifest.json"])
    for _ in range(40):  # whoever changes the file can change its checksum: the decoder itself must bear it
        data = bytearray(good)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(0, 256)
        try:
            columns = form.unpack(bytes(data), manifest)
        except ValueError:
            continue
        assert all(columns[name].size == manifest["arrays"][name]["size"] for name in columns)


# The command.


def run(*args, code=0):
    result = CliRunner().invoke(cli, [str(a) for a in args])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_commands(train_text, held_out, tmp_path):
    (tmp_path / "text.txt").write_text(train_text[:50_000], encoding="utf-8")
    (tmp_path / "val.txt").write_text(held_out, encoding="utf-8")
    build = ("build", "--data", tmp_path / "text.txt", "--order", 4, "--backend", "cpu", "--threads", 1)
    made = json.loads(run(*build, "--max-bytes", "400k", "--held-out", 400, "--out", tmp_path / "small", "--json").stdout)
    assert made["bytes"] == size_of(tmp_path / "small") <= 409_600 and made["packed"] is True
    assert made["pruned"]["held_out"]["chars"] == 400 and "prune" in [phase["name"] for phase in made["phases"]]
    run(*build, "--out", tmp_path / "whole")
    cut = ("prune", tmp_path / "whole", "--max-bytes", 100_000, "--out")
    shown = run(*cut, tmp_path / "pruned", "--held-out", tmp_path / "val.txt").stdout
    assert "Cost of the cut" in shown and "Words left" in shown
    assert "Cut to" in run("inspect", tmp_path / "pruned").stdout
    assert "nothing to cut" in run("prune", tmp_path / "whole", "--out", tmp_path / "x", code=2).output
    refused = run("eval", "--model", tmp_path / "pruned", "--models", "ctw", "--chars", 100, code=2)
    assert "ctw needs all counts" in refused.output
    assert "no model fits in 1,000 bytes" in run("prune", tmp_path / "whole", "--max-bytes", 1000, "--out", tmp_path / "x", code=2).output
    assert not os.path.lexists(tmp_path / "x")
    run(*build, "--models", "ctw", "--max-bytes", "100k", "--out", tmp_path / "x", code=2)
