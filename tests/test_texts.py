"""charstat/texts: files of every kind as one text, in a fixed order; damaged and repeated ones named; data sets; standard input."""

import codecs
import gzip
import io
import json
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import run, run_json

from charstat.corpus import open_corpus
from charstat.errors import CorpusError, UserError
from charstat.facts import corpus_of, default_out
from charstat.model import Model
from charstat.texts.formats import file_pieces, is_text, line_pieces, plain_pieces
from charstat.texts.parts import cut_file, part_pieces

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

DOCUMENTS = ["Ants are small.\nThey dig.", "", "Bees 蜂 🐝 fly.\n", 'quotes " and \\ \u2028 line ends', "last"]
ENDED = "".join(d if d.endswith("\n") or not d else d + "\n" for d in DOCUMENTS)


def zstd(data: bytes) -> bytes:
    return pyarrow.Codec("zstd").compress(data, asbytes=True)


def lines(documents, field="text") -> bytes:
    return "".join(json.dumps({"id": i, field: d}) + "\n" for i, d in enumerate(documents)).encode()


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def write_table(path: Path, documents, field="text") -> Path:
    parquet.write_table(pyarrow.table({"id": list(range(len(documents))), field: documents}), path, row_group_size=2)
    return path


def text_of(name, **options) -> str:
    return open_corpus(name, **options).text("train")


# Large files in parts.

HOSTILE = ["a", "\n", "\r\n", "é", "蜂", "🐝", "\ufeff", "\0", "\u2028"]


@given(st.lists(st.sampled_from(HOSTILE)).map("".join), st.integers(1, 12), st.booleans(), st.booleans())
def test_the_parts_of_a_file_are_its_text(tmp_path_factory, text, part_bytes, mark, closes):
    path = write(tmp_path_factory.mktemp("parts") / "a.raw", codecs.BOM_UTF8 * mark + text.encode())
    parts = cut_file(path, 0, path.stat().st_size, part_bytes, closes)
    assert "".join("".join(part_pieces(part, "text")) for part in parts) == (
        "".join(file_pieces(path)) if closes else text.removeprefix("" if mark else "\ufeff")
    )
    assert all(part.stop - part.first <= part_bytes + 3 for part in parts) and sum(p.stop - p.first for p in parts) == path.stat().st_size


@given(
    st.lists(st.sampled_from(["", "a\nb", "é" * 9, "🐝", "x\n"]), max_size=9),
    st.integers(1, 40),
    st.sampled_from(["\n", "\n\n", "\r\n"]),
    st.booleans(),
)
def test_the_parts_of_json_lines_are_its_documents(tmp_path_factory, documents, part_bytes, end, whole):
    data = end.join(json.dumps({"text": d}, ensure_ascii=False) for d in documents) + end * whole
    path = write(tmp_path_factory.mktemp("parts") / "a.jsonl", data)
    parts = cut_file(path, 0, path.stat().st_size, part_bytes)
    assert "".join("".join(part_pieces(part, "text")) for part in parts) == "".join(file_pieces(path))


def first_error(pieces) -> str:
    with pytest.raises(CorpusError) as e:
        for _ in pieces:
            pass
    return str(e.value)


@given(st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=12).map("".join), st.data(), st.integers(1, 9))
def test_a_bad_byte_in_a_part_is_named_by_its_place_in_the_file(tmp_path_factory, text, data, part_bytes):
    good = text.encode()
    at = data.draw(st.integers(0, len(good)))
    bad = data.draw(st.sampled_from([b"\xff", b"\x80", b"\xe8\x9c", b"\xed\xa0\x80", b"\x80" * 5]))
    path = write(tmp_path_factory.mktemp("parts") / "a.txt", b"+" + good[:at] + bad + good[at:])
    try:
        "".join(file_pieces(path))
    except CorpusError as e:
        wanted = str(e)
    else:
        return  # the bytes were part of a character, or made one
    parts = cut_file(path, 0, path.stat().st_size, part_bytes)
    found = first_error(piece for part in parts for piece in part_pieces(part, "text"))
    assert found.split(" (")[0] == wanted.split(" (")[0]  # a border may change why, not where


def test_a_bad_line_in_a_part_is_named_by_its_place_in_the_file(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "one"}\n' * 9 + b'{"no": 1}\n')
    parts = cut_file(path, 0, path.stat().st_size, 50)
    assert len(parts) == 3 and "the line at byte offset 144: this has no field 'text'" in first_error(part_pieces(parts[-1], "text"))


# Formats.


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".zst", zstd)])
def test_every_kind_of_file(tmp_path, suffix, pack):
    assert "".join(file_pieces(write(tmp_path / f"a.txt{suffix}", pack(b"a\r\nb")))) == "a\r\nb\n"
    assert "".join(file_pieces(write(tmp_path / f"b.raw{suffix}", pack(codecs.BOM_UTF8 + "é\n".encode())))) == "é\n"
    assert "".join(file_pieces(write(tmp_path / f"c.jsonl{suffix}", pack(lines(DOCUMENTS))))) == ENDED
    assert "".join(file_pieces(write(tmp_path / f"D.JSONL{suffix.upper()}", pack(lines([None, "x"], "body"))), "body")) == "x\n"
    assert "".join(file_pieces(write(tmp_path / f"e{suffix}", pack(b"")))) == ""


def test_parquet(tmp_path):
    assert "".join(file_pieces(write_table(tmp_path / "a.parquet", [*DOCUMENTS, None]))) == ENDED
    with pytest.raises(CorpusError, match=r"a.parquet' has no column 'body', but 'id', 'text': name the column with --text-field"):
        list(file_pieces(tmp_path / "a.parquet", "body"))


def test_names_that_are_text():
    assert all(map(is_text, ["a.txt", "a.RAW", "a.jsonl.gz", "a.b.txt.zst", "a.ndjson", "a.parquet"]))
    assert not any(map(is_text, ["a", "a.gz", "a.json", "a.parquet.gz", "txt", "a.txt.bz2"]))


@settings(max_examples=100)
@given(st.lists(st.text(max_size=9), max_size=6), st.integers(1, 7))
def test_documents_come_back_however_the_bytes_are_cut(documents, step):
    def cut(data: bytes):
        return [data[i : i + step] for i in range(0, len(data), step)]

    ended = "".join(d if d.endswith("\n") or not d else d + "\n" for d in documents)
    assert "".join(line_pieces(cut(lines(documents)), "x", "text")) == ended
    for one in documents:
        one = one.removeprefix("\ufeff")
        assert "".join(plain_pieces([one.encode()], "x")) == (one if one.endswith("\n") or not one else one + "\n")


def test_reading_is_bounded(tmp_path):
    write(tmp_path / "a.jsonl.gz", gzip.compress(lines(["x" * 1000] * 30_000)))
    tracemalloc.start()
    assert sum(map(len, open_corpus(tmp_path / "a.jsonl.gz").pieces("train"))) == 30_000 * 1001
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20


# Many files.


@pytest.fixture
def many(tmp_path) -> Path:
    write(tmp_path / "in/b.txt", "second\n")
    write(tmp_path / "in/a.jsonl.zst", zstd(lines(["first", "of all"])))
    write(tmp_path / "in/sub/z.txt.gz", gzip.compress(b"last"))
    write(tmp_path / "in/sub.txt", "sub.txt comes before sub/\n")
    for name in ("notes.md", ".hidden.txt", ".git/x.txt", "empty.txt"):
        write(tmp_path / "in" / name, "" if name == "empty.txt" else "left out")
    return tmp_path / "in"


def test_a_directory_in_the_order_of_names(many):
    corpus = open_corpus(many)
    assert corpus.text("train") == "first\nof all\nsecond\nsub.txt comes before sub/\nlast\n"
    assert (corpus.kind, corpus.splits(), corpus.about["files"], corpus.about["order"]) == ("files", ("train",), 5, "sorted by name")
    assert "5 files, sorted by name" in corpus.description
    with pytest.raises(CorpusError, match="one text to count, and has no val split: name another text with --data"):
        corpus.text("val")


def test_a_glob(many, monkeypatch):
    monkeypatch.chdir(many)
    assert text_of("*.txt") == "second\nsub.txt comes before sub/\n"
    assert text_of(f"{many}/**/*.gz") == "last\n" == text_of("**/*.gz")
    assert text_of("*.md") == "left out\n"
    with pytest.raises(CorpusError, match="no such file or directory: 'x/y'; a data set of the hub is named hub:x/y"):
        open_corpus("x/y")
    assert "*" not in default_out(open_corpus("*.txt"), 8, "default", None, 0, ["mix"]).name


def test_a_directory_with_wikitext_keeps_its_meaning(many):
    write(many / "wiki.train.raw", "x \n")
    assert open_corpus(many).kind == "directory" and text_of(many) == "x \n"


def test_a_directory_without_text(tmp_path):
    write(tmp_path / "in/notes.md", "x")
    with pytest.raises(CorpusError, match=r"no text in the directory .*\.parquet.*looked for wiki.train.raw"):
        open_corpus(tmp_path / "in")


BROKEN = {
    "c.txt": (b"good \xff bad", r"c.txt' is not UTF-8: byte 0xff at byte offset 5"),
    "c.txt.gz": (gzip.compress(b"x" * 99)[:-9], r"c.txt.gz' cannot be read beyond byte offset 0 of its content"),
    "c.raw.gz": (b"no gzip", r"c.raw.gz' cannot be read beyond byte offset 0 of its content: Not a gzipped file"),
    "c.txt.zst": (zstd(np.random.default_rng(1).bytes(3 << 20).hex().encode())[:-99], r"c.txt.zst' cannot be read beyond byte offset \d"),
    "c.jsonl": (lines(["fine"]) + b"{", r"c.jsonl', line 2 at byte offset 26: this is not JSON"),
    "d.jsonl": (lines(["fine"], "body"), r"d.jsonl', line 1 at byte offset 0: this has no field 'text', but 'id', 'body': name the"),
    "e.jsonl": (b"\n[1]\n", r"e.jsonl', line 2 at byte offset 1: this is a JSON list, not an object"),
    "f.jsonl": (b'{"text": 3}', r"f.jsonl', line 1 at byte offset 0: the text field holds a int"),
    "c.parquet": (b"PAR1 nonsense", r"c.parquet' cannot be read beyond row 0"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_among_many_is_named(many, name):
    content, message = BROKEN[name]
    write(many / name, content)
    with pytest.raises(CorpusError, match=message):
        text_of(many)
    corpus = open_corpus(many, skip_bad_files=True)
    assert corpus.text("train") == "first\nof all\nsecond\nsub.txt comes before sub/\nlast\n"
    assert corpus.about["skipped"] == 1 and name in corpus.about["skipped_files"][0]["file"]


def test_repeated_files(many):
    write(many / "sub/copy.txt", "second\n")
    with pytest.raises(CorpusError, match=r"b.txt' and .*copy.txt' hold the same bytes: remove one of them, or .*--skip-bad-files"):
        text_of(many)
    corpus = open_corpus(many, skip_bad_files=True)
    assert corpus.text("train").count("second") == 1 and "copy.txt" in corpus.about["skipped_files"][0]["file"]


# Data sets and standard input.


def test_a_data_set_is_streamed(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    write(tmp_path / "set/train.jsonl", lines(DOCUMENTS, "body"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    corpus = open_corpus(f"hub:{tmp_path}/set", text_field="body")
    assert corpus.kind == "dataset" and corpus.text("train") == ENDED
    with pytest.raises(CorpusError, match="has no column 'text', but 'id', 'body': name the column with --text-field"):
        text_of(f"hub:{tmp_path}/set")


def test_standard_input(monkeypatch):
    def feed(data: bytes):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    feed("as it comes – é".encode())
    assert text_of("-") == "as it comes – é\n"
    feed(lines(DOCUMENTS))
    assert text_of("-", text_field="text") == ENDED
    feed(b"bad \xff")
    with pytest.raises(CorpusError, match="'standard input' is not UTF-8: byte 0xff at byte offset 4"):
        text_of("-")


def test_a_model_is_no_reason_to_fetch_anything():
    for about in ({"kind": "dataset", "name": "hub:x/y", "path": None}, {"kind": "stdin", "name": "-", "path": None}):
        with pytest.raises(UserError, match="was built from .*: name the text with --data"):
            corpus_of(about, "model")


# The command.


def test_a_model_of_many_files_says_how_they_were_read(many, tmp_path, monkeypatch, english):
    monkeypatch.chdir(tmp_path)
    write(many / "more.jsonl", lines([english[:5_000], english[5_000:9_000]], "body"))
    write(many / "broken.txt", b"\xff")
    for name in ("a.jsonl.zst", "b.txt", "sub.txt", "sub/z.txt.gz", "empty.txt"):
        (many / name).unlink()
    message = run("build", "--data", many, "--order", 3, "--contexts", "chars", code=2).output
    assert "broken.txt' is not UTF-8" in message
    options = ("--order", 3, "--contexts", "chars", "--text-field", "body", "--skip-bad-files", "--out", "model")
    result = run("build", "--data", many, *options, "--json")
    assert "1 of 2 files were left out" in result.stderr
    data = json.loads(result.stdout)["data"]
    assert (data["kind"], data["files"], data["skipped"], data["text_field"]) == ("files", 2, 1, "body")
    model = Model.load("model")
    assert corpus_of(model.manifest["data"], "model").text("train") == english[:5_000] + "\n" + english[5_000:9_000] + "\n"
    assert "no val split" in run("eval", "--model", "model", code=2).output
    assert run_json("eval", "--model", "model", "--split", "train", "--chars", 500, "--gate", 0)["chars"] == 500
    (many / "more.jsonl").write_bytes(lines(["other"], "body"))
    assert "has changed since the model was built" in run("eval", "--model", "model", "--split", "train", code=2).output
