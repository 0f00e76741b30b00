"""Models of bytes: a byte is a character, any byte; what goes in and comes out is bytes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from streams import fresh

import charstat
from charstat import Advice, Alphabet, ArgumentError, FormatError, MergeError, Model, UserError, audit, build_model, evaluate
from charstat.alphabet import bytes_of, text_of
from charstat.cli import cli

ALL = bytes(range(256))


@pytest.fixture(scope="module")
def data(english):
    """Text in UTF-8, with some of every byte: more values than symbols, and not UTF-8."""
    return english[:20_000].encode() + ALL * 3 + english[20_000:40_000].encode() + bytes(range(0, 256, 3)) * 2


@pytest.fixture(scope="module")
def built(data):
    return build_model(data, order=5, threads=1)


def test_a_byte_is_a_character():
    assert text_of(b"a\n\xe9\xff") == "a\n\udce9\udcff" and bytes_of(text_of(ALL)) == ALL
    alphabet = Alphabet.from_text(b"abca")
    assert alphabet.of_bytes and set(alphabet.chars) == set("abc") and alphabet != Alphabet.from_text("abca")
    assert alphabet.decode(alphabet.encode(b"cab\xff")) == b"cab?"
    assert alphabet.rare_probability(b"z") == pytest.approx(1 / 253)


@pytest.mark.parametrize("training", [ALL * 2, ALL[:255], ALL[:100], b"a", ALL + b"e" * 50])
def test_what_all_bytes_get_adds_up_to_1(training):
    """Seen, rare and unseen ones; also where no byte is unseen."""
    stream = fresh(build_model(training, order=2, contexts="chars", threads=1))
    for byte in (b"\xff", b"a", b"e"):
        assert sum(stream.probability(bytes([b])) for b in range(256)) == pytest.approx(1, abs=1e-9)
        stream.observe(byte)


def test_ascii_costs_what_its_characters_cost(english):
    known = set(english[:20_000])
    text = english[:20_000] + "".join(c for c in english[20_000:30_000] if c in known)
    text = "".join(c for c in text if c.isascii())
    options = {"order": 4, "threads": 1}
    chars, data = build_model(text[:21_000], **options), build_model(text[:21_000].encode(), **options)
    text = text[:21_000] + "".join(c for c in text[21_000:] if c in chars.alphabet.chars)
    assert set(text) <= set(chars.alphabet.chars) and not data.alphabet.rare
    assert np.array_equal(fresh(data).score(text[21_000:].encode()), fresh(chars).score(text[21_000:]))
    assert data.manifest["text"] == chars.manifest["text"]


def test_a_stream_of_bytes(built, data, tmp_path):
    new = data[19_000:21_500]
    bits = fresh(built).score(new)
    stream = fresh(built)
    stepped, guesses = [], []
    for i in range(400):
        said = stream.predict()
        assert all(isinstance(byte, bytes) and len(byte) == 1 for byte in said)
        assert sum(said.values()) + stream.unlisted_mass == pytest.approx(1, abs=1e-9)
        guesses.append(stream.predict_char())
        stepped.append(-np.log2(stream.probability(new[i : i + 1])))
        stream.observe(new[i : i + 1])
    assert np.allclose(stepped, bits[:400], rtol=0, atol=1e-12) and fresh(built).guess_and_score(new[:400])[0] == guesses
    assert np.array_equal(fresh(built).score(bytearray(new)), bits)
    loaded = Model.load(built.save(tmp_path / "m").path)
    assert loaded.alphabet == built.alphabet and np.array_equal(fresh(loaded).score(new), bits)
    found = evaluate(loaded.stream(), new)
    assert found.chars == len(new) and found.bits_per_char == bits.mean() and 0.2 < found.accuracy < 1
    assert fresh(built).evidence(new).order.size == len(new)
    assert fresh(built).explain(b"\xc3").probability == fresh(built).probability(b"\xc3")


@pytest.mark.parametrize("name", ["ppm", "kneser-ney", "match", "advised"])
def test_other_models_of_bytes(data, name):
    built = build_model(data, order=3, models=(name,), threads=1)
    new = data[19_800:20_300]
    stream = fresh(built, name)
    bits = stream.score(new)
    found = evaluate(built.char_model(), new)
    assert np.isfinite(bits).all() and found.bits_per_char == bits.mean()


def test_shards_warm_starts_and_cuts_of_bytes(data, built, tmp_path):
    half = 21_000
    left = build_model(data[:half], order=5, alphabet=built.alphabet, classes=built.classes, threads=1)
    right = build_model(data[half:], order=5, alphabet=built.alphabet, classes=built.classes, history=data[:half], threads=1)
    whole = Model.merge(left, right)
    assert np.array_equal(fresh(whole).score(data[:3000]), fresh(built).score(data[:3000]))
    warm = build_model(data, order=3, held_out_chars=3000, threads=1)
    assert warm.warm_start_chars == 3000 and warm.alphabet.of_bytes
    small = built.save(tmp_path / "small", max_bytes=200_000)
    assert Model.load(small.path).alphabet.of_bytes and np.isfinite(fresh(small).score(ALL)).all()


def test_text_and_bytes_do_not_mix(built, model):
    takes_bytes, takes_text = "a model of bytes takes bytes, not str: encode it", "must be a str, not bytes: decode it first"
    for method in ("score", "guess_and_score", "distributions", "commit", "evidence"):
        with pytest.raises(ArgumentError, match=takes_bytes):
            getattr(fresh(built), method)("text")
        with pytest.raises(ArgumentError, match=takes_text):
            getattr(fresh(model), method)(b"text")
    for char, what in (("a", "str"), (97, "int"), (b"ab", "2 bytes"), (b"", "0 bytes")):
        with pytest.raises(ValueError, match=f"expected bytes, one, not {what}"):
            fresh(built).observe(char)
    with pytest.raises(ValueError, match="expected a string of one character, not bytes"):
        fresh(model).observe(b"a")
    with pytest.raises(ArgumentError, match="the text is bytes, and history str"):
        build_model(b"ab", history="a")
    with pytest.raises(ArgumentError, match="history must be a str"):
        build_model("ab", history=b"a")
    with pytest.raises(ArgumentError, match=takes_bytes):
        build_model("ab", alphabet=built.alphabet)
    with pytest.raises(MergeError, match="different alphabets"):
        Model.merge(build_model("ab", order=1, threads=1), build_model(b"ab", order=1, threads=1))
    with pytest.raises(UserError, match="cannot compress yet"):
        charstat.Encoder(built)
    with pytest.raises(ArgumentError, match="memoryview"):
        build_model(memoryview(b"ab"))


def test_advice_for_bytes(built, data):
    new, row = data[100:200], np.full((100, 256), 1 / 256)
    stream = fresh(built, experts=1)
    said = Advice([bytes([b]) for b in range(256)], row)
    assert np.isfinite(stream.score(new, said)).all()
    with pytest.raises(ArgumentError, match=r"a model of bytes takes bytes, not str"):
        stream.score(new, Advice([chr(b) for b in range(256)], row))


def test_an_audit_of_bytes(built, data):
    found = audit(lambda: built.stream(), data[19_900:20_100], probes=12, positions=4)
    assert found.clean and found.bytes == found.chars == 200
    assert "sums over 256 bytes" in found.check("sum").detail

    class Leaves(type(built.stream())):
        def score(self, text, advice=None):
            return super().score(text, advice) - 1.0

    assert "sum" in audit(lambda: Leaves(built), data[:100], probes=3, positions=2).caught


def test_damaged_alphabets_of_bytes(built):
    good = built.alphabet.to_dict()
    for change in ({"chars": ["é", *good["chars"][1:]]}, {"rare": {**good["rare"], "\u0100": 1}}):
        with pytest.raises(ValueError, match="no bytes"):
            Alphabet.from_dict(good | change)
    with pytest.raises(FormatError, match="bytes"):
        Model({**built.manifest, "alphabet": good | {"bytes": 1}}, built.all_columns)


def test_bytes_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*args):
        return CliRunner().invoke(cli, list(args))

    data = (ALL + b"some plain words and some more plain words\r\n" * 5) * 40
    (tmp_path / "data.bin").write_bytes(data)
    done = run("build", "--bytes", "--data", "data.bin", "--order", "3", "--json")
    assert done.exit_code == 0, done.output
    about = json.loads(done.stdout)
    assert about["out"] == "models/data-bytes-o3" and about["chars"] == len(data) * 90 // 100 and about["bytes_only"]
    done = run("eval", "--gate", "0.5", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["chars"] == len(data) * 95 // 100 - len(data) * 90 // 100
    shown = run("inspect")
    assert shown.exit_code == 0 and "127 bytes with a symbol of their own, 129 rare ones" in " ".join(shown.stdout.split())
    audited = run("audit", "models/data-bytes-o3", "--text", "data.bin", "--chars", "60", "--probes", "3", "--positions", "2")
    assert audited.exit_code == 0 and "CLEAN" in audited.stdout
    pruned = run("prune", "models/data-bytes-o3", "--min-count", "3", "--out", "small", "--held-out", "data.bin")
    assert pruned.exit_code == 0, pruned.output
    for args, says in (
        (("explain", "some text", "--model", "models/data-bytes-o3"), "a model of bytes takes bytes"),
        (("eval", "--report", "page.html"), "a model of bytes"),
        (("build", "--bytes", "--data", "data.bin", "--engine", "dask"), "--bytes"),
    ):
        refused = run(*args)
        assert refused.exit_code == 2 and says in refused.output, refused.output
    (tmp_path / "data.bin").write_bytes(data[1:])
    assert "has changed since the model was built" in run("eval").output


def test_the_page_on_bytes_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.bin").write_bytes(ALL * 20 + b"some words " * 50)
    page = (Path(__file__).parents[1] / "docs" / "bytes.md").read_text(encoding="utf-8")
    first, second = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    names = {"charstat": charstat, "data": (tmp_path / "data.bin").read_bytes()}
    exec(compile(first, "bytes.md", "exec"), names)  # noqa: S102
    assert names["bits"].size == len(b"\x00\xff some bytes") and names["model"].alphabet.of_bytes
    exec(compile(second, "bytes.md", "exec"), names)  # noqa: S102
    assert names["tokens"].vocab_size == 256


@pytest.mark.parametrize("text", ["abc", b"abc"])
@pytest.mark.parametrize("history", [np.array([1, 2]), np.array([]), 3, None, ["a"]])
def test_a_history_of_another_type_is_refused(text, history):
    with pytest.raises(ArgumentError, match="history"):
        build_model(text, history=history)
