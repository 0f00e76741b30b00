"""verify.py: each invariant that the kernels rely on, broken by hand with the checksums put right, is refused by name."""

import hashlib
import json

import numpy as np
import pytest
from test_storage import copy, saved  # noqa: F401 (fixtures)

from charstat import verify
from charstat.counting import build_model
from charstat.errors import FormatError, MergeError, UserError
from charstat.manifest import seal
from charstat.model import Model
from charstat.ngram.hashing import mix57
from charstat.ngram.table import CountTable, assemble
from charstat.storage import COLUMNS, HEADER_BYTES, npy_header


def change(folder, column, edit):
    """Edit a column in place: edit(values, entries of the tables), and seal everything again."""
    about = json.loads((folder / "manifest.json").read_text())
    dtype = np.dtype(COLUMNS[column])
    values = np.fromfile(folder / f"{column}.npy", dtype, offset=HEADER_BYTES)
    edit(values, about["tables"])
    (folder / f"{column}.npy").write_bytes(npy_header(dtype, values.size) + values.tobytes())
    about["arrays"][column]["sha256"] = hashlib.sha256(values.tobytes()).hexdigest()
    (folder / "manifest.json").write_bytes(seal(about))


def at(table, field, offset=0):
    return lambda t: t[table][field] + offset


def put(where, value):
    def edit(values, tables):
        values[where(tables)] = value(values, where(tables)) if callable(value) else value

    return edit


EDITS = {
    "buckets that fall": ("buckets", put(at("o3", "bucket_at", 1), 2**32 - 1), "buckets.npy, table o3.*ends before it starts"),
    "a bucket too few": ("buckets", put(at("o3", "bucket_at", 1), lambda v, i: v[i] + 1), "records.npy, table o3.*another bucket"),
    "first row 1": ("records", put(at("o3", "record_at"), lambda v, i: v[i] + 1), "records.npy, table o3, context 0: a context that starts"),
    "an empty context": ("records", put(at("o3", "record_at", 1), lambda v, i: v[i] & ~np.uint64(0xFF)), "records.npy|buckets.npy"),
    "another identity": ("records", put(at("o3", "record_at", 3), lambda v, i: v[i] ^ np.uint64(1 << 63)), "records.npy, table o3, context 3: identities"),
    "the same identity twice": ("records", lambda v, t: v.__setitem__(slice(t["o1"]["record_at"], t["o1"]["record_at"] + 3), v[t["o1"]["record_at"]]),
                                "records.npy, table o1"),
    "rows of 0": ("rows", lambda v, t: v.fill(0), "rows.npy"),
    "a count of 0": ("rows", put(at("o3", "row_at"), lambda v, i: v[i] & 127), "rows.npy, table o3, context 0: a count of 0"),
    "a symbol beyond the alphabet": ("rows", put(at("o0", "row_at", 1), lambda v, i: (v[i] & ~np.uint32(127)) | 126), "rows.npy, table o0.*does not exist"),
    "symbols that fall": ("rows", lambda v, t: v.__setitem__(slice(t["o0"]["row_at"], t["o0"]["row_at"] + 3), v[t["o0"]["row_at"] :][:3][::-1].copy()),
                          "rows.npy, table o0, context 0: symbols or words of a context that do not rise"),
    "counts that overflow": ("rows", lambda v, t: v.__setitem__(slice(t["o0"]["row_at"], t["o0"]["row_at"] + t["o0"]["rows"]),
                                                               v[t["o0"]["row_at"] :][: t["o0"]["rows"]] | ~np.uint32(127)), None),
    "a word beyond the vocabulary": ("rows", put(at("p", "row_at"), 2**32 - 1), "rows.npy, table p, context 0"),
    "sums that fall": ("sums", put(at("p.w1", "sum_at", 2), 0), "sums.npy, table p.w1, row 1: sums that do not rise"),
    "sums that start late": ("sums", put(at("p.w1", "sum_at"), 1), "sums.npy, table p.w1"),
    "sums that overflow": ("sums", lambda v, t: v.__setitem__(t["p"]["sum_at"] + t["p"]["rows"], 2**31), "sums.npy, table p: .*no text has"),
    "first_id all ones": ("first_id", lambda v, t: v.fill(2**32 - 1), "trie, node 0"),
    "a child of its own": ("first_child", lambda v, t: v.__setitem__(1, 1), "trie|words"),
    "children that fall": ("trie_symbol", lambda v, t: v.__setitem__(slice(1, 4), v[1:4][::-1].copy()), "trie, node 0"),
    "a symbol of no leaf": ("trie_symbol", lambda v, t: v.__setitem__(2, 200), "trie, node 0"),
    "an id beyond": ("first_id", lambda v, t: v.__setitem__(-1, 2**20), "trie, node"),
    "nan": ("betas", lambda v, t: v.__setitem__(5, np.nan), "betas.npy, value 5: no weight"),
    "infinity": ("betas", lambda v, t: v.__setitem__(5, np.inf), "betas.npy, value 5: no weight"),
    "negative": ("betas", lambda v, t: v.__setitem__(0, -1.0), "betas.npy, value 0: no weight"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_broken_invariants(copy, name):  # noqa: F811
    column, edit, message = EDITS[name]
    change(copy, column, edit)
    if message is None:  # few symbols cannot add up to more than there is room for: the next test
        Model.load(copy)
        return
    with pytest.raises(FormatError, match=f"is damaged: .*({message})"):
        Model.load(copy)


def test_counts_of_more_than_a_text():
    """65 symbols of the highest count: more than 2**31 in one context, which would be negative as a mass."""
    rows = (np.uint32((1 << 25) - 1) << np.uint32(7)) | np.arange(65, dtype=np.uint32)
    model = build_model("".join(map(chr, range(40, 160))) * 2, order=1, contexts="o0", threads=1)
    identity = np.array([mix57(np.uint64(0))], np.uint64)
    context = model.contexts[0]
    for n, fine in ((64, True), (65, False)):
        table: CountTable = assemble(context, identity.copy(), np.array([0, n], np.uint32), rows[:n])
        jobs = list(verify._table_jobs(table, verify.used_symbols(100), 0))
        if fine:
            verify.run_jobs(jobs)
        else:
            with pytest.raises(ValueError, match="rows.npy, table o0, context 0: a count of 0, or counts that no text has"):
                verify.run_jobs(jobs)


def test_the_limit_of_weights_is_the_one_that_they_are_clipped_to():
    from charstat.ctw import weights

    assert verify.BETA_MAX == weights.BETA_MAX


def test_whole_models_pass(copy, model, crowded_model):  # noqa: F811
    for m in (Model.load(copy), model, crowded_model):
        verify.check_arrays(m.alphabet.size, m.vocabulary, m.tables.values(), m.betas)


def test_many_spans(model, monkeypatch):
    """Cut anywhere, the same is checked."""
    monkeypatch.setattr(verify, "SPAN_BUCKETS", 3)
    monkeypatch.setattr(verify, "SPAN_VALUES", 5)
    small = build_model("the cat sat on the mat\n" * 3, order=3, models=("mix", "ctw"), threads=1)
    verify.check_arrays(small.alphabet.size, small.vocabulary, small.tables.values(), small.betas)
    jobs = list(verify._table_jobs(small.tables["o3"], verify.used_symbols(small.alphabet.size), small.vocabulary.size))
    assert len(jobs) > 2


def test_words_of_too_many_symbols(copy):  # noqa: F811
    """A trie deeper than packed words: merge() would write beyond them."""
    n = verify.MAX_DEPTH + 2
    first_child = np.minimum(np.arange(1, n + 2), n).astype(np.uint32)
    chain = (first_child, np.zeros(n, np.uint8), np.zeros(n, np.uint32))
    used = verify.used_symbols(5)
    assert verify._bad_node(*chain, 1, used, np.empty(n, np.uint32)) == n - 1
    shorter = n - 1
    first_child = np.minimum(np.arange(1, shorter + 2), shorter).astype(np.uint32)
    assert verify._bad_node(first_child, chain[1][:-1], chain[2][:-1], 1, used, np.empty(shorter, np.uint32)) == -1


@pytest.mark.parametrize("level", ["Full", 3, None, "", b"full", 1.5, []])
def test_levels_have_names(copy, level):  # noqa: F811
    with pytest.raises(UserError, match="verify is 'full' or 'fast'"):
        Model.load(copy, verify=level)


def test_counts_that_would_overflow_are_not_merged():
    model = build_model("the cat sat on the mat\n" * 3000, order=2, contexts="words", threads=1)
    doubled = 0
    with pytest.raises(MergeError, match="the sum would count .* tables have room for 2,147,483,647"):
        while True:
            model = Model.merge(model, model)
            doubled += 1
    assert model.tables["o0"].total() <= 2**31 - 1 < 2 * 23 * 3000 << doubled
    verify.check_arrays(model.alphabet.size, model.vocabulary, model.tables.values(), model.betas)
    assert len(model.manifest["text"]["parts"]) == 1000 and model.manifest["text"]["more_parts"] == (1 << doubled) - 1000
    assert len(json.dumps(model.manifest)) < 3_000_000
