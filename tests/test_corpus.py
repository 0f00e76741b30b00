"""charstat/corpus.py: names, paths, layouts, limits, encodings, and the hub through a fake `datasets`."""

import codecs
import hashlib
import os
import sys
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charstat import corpus as corpus_module
from charstat.corpus import SPLITS, Corpus, HubUnavailable, normalise_split, open_corpus, text_fingerprint
from charstat.errors import CharstatError, CorpusError

VALID = Path(__file__).resolve().parents[2] / "shared" / "data" / "wiki.valid.raw"
needs_valid = pytest.mark.skipif(not VALID.is_file(), reason="../shared/data/wiki.valid.raw is not there")

ROWS = ["", " = Ants = \n", "", " Ants are small – very . \n", " They dig . \n", "", " = Bees = \n", "", " Bees 蜂 🐝 . \n"]
CONTEST = "\n".join(ROWS)
RELEASE = "".join(row or " \n" for row in ROWS)


def contest_to_release(text: str) -> str:
    """The reverse of the conversion under test, by a scan: at each row's start, a line break is a blank row."""
    out, i = [], 0
    while i < len(text):
        end = text.find("\n", i)
        if end < 0:  # only text that is not in the contest's layout: a row without its line break
            raise ValueError("a row has no line break")
        out.append(" \n" if end == i else text[i : end + 1])
        i = end + 1 if end == i else end + 2
    if text.endswith("\n") and i == len(text):  # a separator came last: one more, empty row behind it
        out.append(" \n")
    return "".join(out)


def to_contest(release: str, cut: int = 1 << 20) -> str:
    return "".join(corpus_module._release_to_contest(release[i : i + cut] for i in range(0, len(release), cut)))


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(corpus_module, "_CHUNK", 5)


# Splits and fingerprints.


@pytest.mark.parametrize(("name", "split"), [("train", "train"), ("val", "val"), ("valid", "val"), ("validation", "val"), ("test", "test")])
def test_normalise_split(name, split):
    assert normalise_split(name) == split


@pytest.mark.parametrize("name", ["", "Train", "dev", None, 3])
def test_unknown_split_lists_the_known(name):
    with pytest.raises(CorpusError, match="unknown split .*train, val .*test"):
        normalise_split(name)


@pytest.mark.parametrize("text", ["", "abc", "né–🐝" * 7, "lone \ud83d", "pair \ud83d\udc1d in two code points", "\udc1d" * 9])
def test_fingerprint_does_not_depend_on_chunks(text, monkeypatch):
    expected = {"chars": len(text), "sha256": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()}
    assert text_fingerprint(text) == expected
    for chunk in (1, 2, 5):
        monkeypatch.setattr(corpus_module, "_CHUNK", chunk)
        assert text_fingerprint(text) == expected


def test_fingerprint_known_answer():
    assert text_fingerprint("abc")["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# The embedded sample.


def test_sample_says_that_it_is_a_sample():
    corpus = open_corpus("sample")
    assert (corpus.name, corpus.kind, corpus.layout, corpus.splits()) == ("sample", "sample", "plain", SPLITS)
    assert "not WikiText" in corpus.description and "\n" not in corpus.description
    assert ".".join(map(str, sys.version_info[:3])) in corpus.description


def test_sample_splits_cover_the_topics_exactly():
    corpus = open_corpus("sample")
    parts = [corpus.text(split) for split in SPLITS]
    whole = "".join(parts)
    assert whole == corpus_module._sample_text() and len(whole) > 100_000
    assert [len(part) for part in parts[:2]] == [len(whole) * 90 // 100, len(whole) * 95 // 100 - len(whole) * 90 // 100]
    assert corpus.text("valid", 100) == parts[1][:100]


def test_sample_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(CorpusError, match="no pydoc_data.topics.*--data FILE"):
        open_corpus("sample").text("train")


def test_a_path_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "sample", "my own sample text")
    assert open_corpus("sample").kind == "sample"
    assert open_corpus("./sample").kind == open_corpus(Path("sample")).kind == "file"


# Files.


@pytest.mark.parametrize("chars", [1, 2, 9, 10, 11, 19, 20, 21, 100, 1003])
@pytest.mark.parametrize("alphabet", ["abcdefg", "aé–🐝x", "🐝"])
def test_file_splits_cover_the_text_exactly(tmp_path, small_chunks, chars, alphabet):
    text = (alphabet * chars)[:chars]
    corpus = open_corpus(write(tmp_path / "text", text))
    assert (corpus.kind, corpus.layout, corpus.splits()) == ("file", "plain", SPLITS)
    parts = [corpus.text(split) for split in SPLITS]
    if chars == 1:
        assert parts == [text, "", ""]  # one character makes a model
        return
    assert parts == [text[: chars * 90 // 100], text[chars * 90 // 100 : chars * 95 // 100], text[chars * 95 // 100 :]]
    for split, part in zip(SPLITS, parts, strict=True):
        for limit in {0, 1, 3, len(part) // 2, max(0, len(part) - 1), len(part), len(part) + 1, 10**9}:
            assert corpus.text(split, limit) == part[:limit]


@settings(max_examples=200, deadline=None)
@given(text=st.text(min_size=1, max_size=60), bom=st.booleans(), chunk=st.integers(1, 9), limit=st.integers(0, 70))
def test_any_text_comes_back(tmp_path_factory, text, bom, chunk, limit):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    text = text.removeprefix("\ufeff") or "x"
    write(path, codecs.BOM_UTF8 * bom + text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "_CHUNK", chunk)
        corpus = open_corpus(path)
        parts = [corpus.text(split) for split in SPLITS]
        assert "".join(parts) == text
        assert [corpus.text(split, limit) for split in SPLITS] == [part[:limit] for part in parts]


def test_line_ends_are_kept(tmp_path):
    text = "one\r\ntwo\rthree\n\x0bfour\u2028five\x85six\r" * 3
    corpus = open_corpus(write(tmp_path / "text", text))
    assert "".join(corpus.text(split) for split in SPLITS) == text


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 1 << 20])
def test_only_the_first_byte_order_mark_is_dropped(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(corpus_module, "_CHUNK", chunk)
    write(tmp_path / "wiki.train.raw", "\ufeff\ufeffab\ufeffc")
    assert open_corpus(tmp_path).text("train") == "\ufeffab\ufeffc"


def test_byte_order_mark_before_the_release_layout(tmp_path):
    write(tmp_path / "wiki.test.raw", "\ufeff" + RELEASE)
    assert open_corpus(tmp_path).layout == "release"
    assert open_corpus(tmp_path).text("test") == CONTEST


def test_name_is_as_typed_and_the_path_survives_chdir(tmp_path, monkeypatch):
    write(tmp_path / "text", "abcdefghij" * 2)
    monkeypatch.chdir(tmp_path)
    corpus = open_corpus("text")
    monkeypatch.chdir("/")
    assert corpus.name == "text" and "text: 20 bytes" in corpus.description
    assert corpus.text("train") == ("abcdefghij" * 2)[:18]


def test_corpus_is_frozen(tmp_path):
    with pytest.raises(AttributeError):
        open_corpus("sample").name = "other"
    assert Corpus("a", "file", "plain", "b") == Corpus("a", "file", "plain", "b")


# Bytes that are not UTF-8.

BAD = [b"\xff", b"\x80", b"\xc3(", b"\xe2\x82", b"\xe2\x28\xa1", b"\xf0\x9f\x90", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("bom", [b"", codecs.BOM_UTF8])
def test_offset_of_invalid_utf8_in_a_directory(tmp_path, small_chunks, bad, bom):
    for before in range(14):
        for after in (b"", b"zz", "é–🐝".encode()):
            data = bom + ("aé–🐝" * 4).encode()[:before].decode(errors="ignore").encode() + bad + after
            with pytest.raises(UnicodeDecodeError) as expected:
                data.decode()
            write(tmp_path / "wiki.train.raw", data)
            with pytest.raises(CorpusError, match=rf"wiki\.train\.raw.* at byte offset {expected.value.start} "):
                open_corpus(tmp_path).text("train")


@pytest.mark.parametrize("bad", BAD)
def test_offset_of_invalid_utf8_in_a_file(tmp_path, small_chunks, bad):
    """Every byte lies in exactly one split; the first of them that fails names the first bad byte of the file."""
    good = ("aé–🐝" * 30).encode()
    for before in (0, 1, 3, 6, 20, 100, 250, 271, 280, 290, 300):
        data = good[:before].decode(errors="ignore").encode() + bad + b"zz"
        with pytest.raises(UnicodeDecodeError) as expected:
            data.decode()
        corpus = open_corpus(write(tmp_path / "text", data))
        errors = []
        for split in SPLITS:
            try:
                corpus.text(split)
            except CorpusError as exc:
                errors.append(str(exc))
        assert f"at byte offset {expected.value.start} " in errors[0]
        assert str(tmp_path / "text") in errors[0]


def test_invalid_utf8_beyond_the_default_chunk(tmp_path):
    data = b"a" * (corpus_module._CHUNK - 1) + "é".encode() + b"b" * 1000 + b"\xfe"
    write(tmp_path / "wiki.train.raw", data)
    corpus = open_corpus(tmp_path)
    with pytest.raises(CorpusError, match=f"byte 0xfe at byte offset {len(data) - 1} "):
        corpus.text("train")
    assert corpus.text("train", 1000) == "a" * 1000  # the limit keeps the rest of the file undecoded


def test_nothing_but_continuation_bytes(tmp_path, small_chunks):
    corpus = open_corpus(write(tmp_path / "text", b"\x80" * 11))
    with pytest.raises(CorpusError, match="byte offset 0 "):
        corpus.text("train")


# Paths that are no text.


@pytest.mark.parametrize("data", ["", "no/such/path", "wikitext-2"])
def test_missing_path(data):
    with pytest.raises(CorpusError, match="no such file or directory.*--data sample"):
        open_corpus(data)


def test_path_below_a_file(tmp_path):
    write(tmp_path / "text", "x")
    with pytest.raises(CorpusError, match="no such file"):
        open_corpus(tmp_path / "text" / "more")


@pytest.mark.parametrize("content", [b"", codecs.BOM_UTF8])
def test_empty_file(tmp_path, content):
    with pytest.raises(CorpusError, match="text.* is empty"):
        open_corpus(write(tmp_path / "text", content))
    write(tmp_path / "wiki.train.raw", "some text")
    write(tmp_path / "wiki.test.raw", content)
    with pytest.raises(CorpusError, match=r"wiki\.test\.raw.* is empty"):
        open_corpus(tmp_path).text("test")


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero"])
def test_device(path):
    if not os.path.exists(path):
        pytest.skip(f"no {path}")
    with pytest.raises(CorpusError, match="not a regular file"):
        open_corpus(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CorpusError, match="not a regular file"):
        open_corpus(tmp_path / "pipe")


@pytest.mark.parametrize("data", ["nul\0character", "x" * 5000])
def test_path_that_the_system_refuses(data):
    with pytest.raises(CorpusError, match="cannot read"):
        open_corpus(data)


def test_read_error_in_a_later_chunk(tmp_path, monkeypatch):
    class Failing:
        def __init__(self, path, mode):
            self.blocks = [b"a" * 5]

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            return False

        def seek(self, offset):
            pass

        def read(self, size):
            if not self.blocks:
                raise OSError(5, "Input/output error")
            return self.blocks.pop()

    write(tmp_path / "wiki.train.raw", "a" * 100)
    corpus = open_corpus(tmp_path)
    monkeypatch.setattr(corpus_module, "open", Failing, raising=False)
    with pytest.raises(CorpusError, match=r"cannot read .*wiki\.train\.raw.*Input/output error"):
        corpus.text("train")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path):
    path = write(tmp_path / "wiki.train.raw", "text")
    path.chmod(0)
    for data in (path, tmp_path):
        with pytest.raises(CorpusError, match="cannot read .*Permission denied"):
            open_corpus(data)
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(CorpusError, match="cannot read .*Permission denied"):
        open_corpus(tmp_path / "closed")


# Directories and layouts.


def test_contest_directory(tmp_path):
    for name in ("train", "valid", "test"):
        write(tmp_path / f"wiki.{name}.raw", name + CONTEST)
    corpus = open_corpus(str(tmp_path))
    assert (corpus.name, corpus.kind, corpus.layout, corpus.splits()) == (str(tmp_path), "directory", "contest", SPLITS)
    assert corpus.text("train") == "train" + CONTEST
    assert corpus.text("validation") == corpus.text("val") == "valid" + CONTEST
    assert corpus.text("test") == "test" + CONTEST


def test_release_directory_is_converted(tmp_path, small_chunks):
    write(tmp_path / "wiki.valid.raw", RELEASE)
    corpus = open_corpus(tmp_path)
    assert corpus.layout == "release" and "converted" in corpus.description
    assert corpus.text("val") == CONTEST
    for limit in range(len(CONTEST) + 2):
        assert corpus.text("val", limit) == CONTEST[:limit]


def test_missing_split_says_what_where_and_how(tmp_path):
    with pytest.raises(CorpusError, match=r"looked for wiki\.train\.raw, wiki\.valid\.raw, wiki\.test\.raw; use --data"):
        open_corpus(tmp_path)
    write(tmp_path / "wiki.train.tokens", CONTEST)
    write(tmp_path / "wiki.valid.raw", CONTEST)
    corpus = open_corpus(tmp_path)
    assert corpus.splits() == ("val",)
    with pytest.raises(CorpusError, match=r"no train split in .*looked for wiki\.train\.raw, found wiki\.valid\.raw.*--data") as caught:
        corpus.text("train", 0)
    assert str(tmp_path) in str(caught.value)
    write(tmp_path / "wiki.train.raw", "late")
    assert corpus.text("train") == "late"


def test_split_that_is_a_directory(tmp_path):
    write(tmp_path / "wiki.train.raw", CONTEST)
    (tmp_path / "wiki.test.raw").mkdir()
    with pytest.raises(CorpusError, match=r"wiki\.test\.raw.*not a regular file"):
        open_corpus(tmp_path).text("test")


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        (CONTEST, "contest"),
        (RELEASE, "release"),
        (" \n = A = \n", "release"),
        (" = A = \n \n text . \n", "release"),
        (" = A = \n \n" * 9 + "\n\n", "release"),
        ("one\ntwo\n", "plain"),
        ("no line break", "plain"),
        ("\n", "plain"),
        ("a\n\n" * 9 + " \n", "plain"),
        ("a\r\n \r\nb", "plain"),
    ],
)
def test_detection(tmp_path, text, layout):
    write(tmp_path / "wiki.train.raw", text)
    corpus = open_corpus(tmp_path)
    assert corpus.layout == layout
    assert corpus.text("train") == (to_contest(text) if layout == "release" else text)


def test_detection_looks_at_the_head_of_the_first_split_only(tmp_path):
    write(tmp_path / "wiki.train.raw", b"x" * 100_000 + RELEASE.encode() + b"\xff")
    write(tmp_path / "wiki.test.raw", RELEASE)
    assert open_corpus(tmp_path).layout == "plain"


def test_known_conversion():
    assert CONTEST.startswith("\n = Ants = \n\n\n Ants are")
    assert to_contest(RELEASE) == CONTEST and contest_to_release(CONTEST) == RELEASE
    assert to_contest("a\n") == "a\n" and to_contest("a\nb") == "a\n\nb\n" and to_contest(" \n \n") == "\n" and to_contest("") == ""


row = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=8).filter(str.strip).map(lambda line: line + "\n")


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.one_of(st.just(""), row), min_size=2, max_size=12), cut=st.integers(1, 30))
def test_layouts_round_trip(rows, cut):
    contest, release = "\n".join(rows), "".join(row or " \n" for row in rows)
    assert contest_to_release(contest) == release
    assert to_contest(release, cut) == contest


@needs_valid
def test_wikitext_validation_round_trip(tmp_path):
    shared = open_corpus(VALID.parent)
    contest = shared.text("val")
    assert shared.layout == "contest"
    assert text_fingerprint(contest)["chars"] == 1_145_909
    assert text_fingerprint(contest)["sha256"].startswith("714a24a5")
    write(tmp_path / "wiki.valid.raw", contest_to_release(contest))
    corpus = open_corpus(tmp_path)
    assert corpus.layout == "release"
    assert corpus.text("val") == contest
    assert corpus.text("val", 60_000) == contest[:60_000]


# Laziness and memory.


def test_a_limit_reads_little(tmp_path):
    write(tmp_path / "wiki.train.raw", b"ab c\n" * 4_000_000)
    corpora = [open_corpus(tmp_path), open_corpus(tmp_path / "wiki.train.raw")]
    tracemalloc.start()
    try:
        assert [len(corpus.text("train", 100)) for corpus in corpora] == [100, 100]
        assert len(corpora[1].text("val", 100)) == 100
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        assert len(corpora[0].text("train")) == 20_000_000
        whole_peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 15_000_000  # chunks, not the file
    assert whole_peak < 45_000_000  # the text twice at most: its pieces, and joined


def read_with_progress(corpus, split, limit=None):
    """The text, and the shares that were told; the last is the whole, and none falls by more than an estimate can be wrong."""
    told = []
    text = corpus.text(split, limit, lambda done, total: told.append((done, total)))
    assert text == corpus.text(split, limit)
    assert all(0 <= done <= total for done, total in told) and told[-1][0] == told[-1][1] > 0
    return text, [done / total for done, total in told]


@pytest.mark.parametrize("text", [CONTEST * 20, RELEASE * 20, "x", "aé–🐝" * 50])
def test_progress_of_a_directory(tmp_path, small_chunks, text):
    write(tmp_path / "wiki.train.raw", text)
    corpus = open_corpus(tmp_path)
    shares = read_with_progress(corpus, "train")[1]
    assert shares == sorted(shares) and len(shares) == -(-len(text.encode()) // 5) + 1
    for limit in (0, 1, 7, len(text) // 3, len(text), 10**9):
        shares = read_with_progress(corpus, "train", limit)[1]
        assert shares == sorted(shares)
        assert max(np.diff([0, *shares])) < 0.4 or min(limit, len(text)) < 50  # in steps, not at the end alone


@pytest.mark.parametrize("split", SPLITS)
def test_progress_of_a_file_covers_both_passes(tmp_path, small_chunks, split):
    corpus = open_corpus(write(tmp_path / "text", "aé–🐝x" * 200))
    shares = read_with_progress(corpus, split)[1]
    assert len(shares) > 400 and shares == sorted(shares) and max(np.diff([0, *shares[:-1]])) < 0.02
    read_with_progress(corpus, split, 3)


def test_progress_of_the_sample_and_of_the_hub(fake_hub, monkeypatch):
    assert read_with_progress(open_corpus("sample"), "val")[1] == [1.0]
    monkeypatch.setattr(corpus_module, "_HUB_ROWS", 2)
    text, shares = read_with_progress(open_corpus("wikitext-103"), "val")
    assert shares == pytest.approx([0.2 * 2 / 3, 0.4 * 2 / 3, 0.6 * 2 / 3, 0.8 * 2 / 3, 2 / 3, 1.0])
    shares = read_with_progress(open_corpus("wikitext-103"), "val", len(text) - 1)[1]
    assert shares == sorted(shares) and len(shares) > 4


def test_errors_come_through_progress(tmp_path, small_chunks):
    told = []
    write(tmp_path / "wiki.train.raw", b"a" * 12 + b"\xff" + b"b" * 50)
    with pytest.raises(CorpusError, match="byte offset 12"):
        open_corpus(tmp_path).text("train", None, lambda *share: told.append(share))
    assert told == [(10, 189), (20, 189)]


def test_negative_limit():
    with pytest.raises(CorpusError, match="limit is -1"):
        open_corpus("sample").text("train", -1)


# The hub.


@pytest.fixture
def fake_hub(monkeypatch):
    """A fake `datasets`: set .result to what load_dataset returns or raises; .calls has its arguments."""
    hub = types.ModuleType("datasets")
    hub.calls = []
    hub.result = {name: {"text": [f" {name} \n", *ROWS]} for name in ("train", "validation", "test")}

    def load_dataset(*args, **kwargs):
        hub.calls.append((args, kwargs))
        if isinstance(hub.result, Exception):
            raise hub.result
        return hub.result

    hub.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", hub)
    return hub


@pytest.mark.parametrize("rows_at_a_time", [1, 3, 1 << 16])
@pytest.mark.parametrize("name", ["wikitext-103", "wikitext"])
def test_hub_rows_are_joined(fake_hub, monkeypatch, name, rows_at_a_time):
    monkeypatch.setattr(corpus_module, "_HUB_ROWS", rows_at_a_time)
    corpus = open_corpus(name)
    assert (corpus.name, corpus.kind, corpus.layout, corpus.splits()) == (name, "hub", "contest", SPLITS)
    assert not fake_hub.calls  # opening asks nothing
    for split, theirs in (("train", "train"), ("val", "validation"), ("valid", "validation"), ("test", "test")):
        text = f" {theirs} \n\n" + CONTEST
        assert corpus.text(split) == text
        assert [corpus.text(split, limit) for limit in (0, 1, 30, 10**6)] == [text[:limit] for limit in (0, 1, 30, 10**6)]
    assert fake_hub.calls[0] == (("Salesforce/wikitext", "wikitext-103-raw-v1"), {})


def test_hub_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(HubUnavailable, match="datasets.*--data DIR or --data sample") as caught:
        open_corpus("wikitext-103").text("val")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, CorpusError) and isinstance(caught.value, CharstatError) and caught.value.exit_code == 2


class HTTPError(Exception):
    """As httpx's: an Exception, not an OSError."""


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach 'Salesforce/wikitext' on the Hub\n(LocalEntryNotFoundError)"),
        FileNotFoundError("Dataset is not cached in None"),
        OSError(28, "No space left on device"),
        ValueError("Couldn't find cache for wikitext"),
        TimeoutError(),
        RuntimeError("client has been closed"),
        HTTPError("word " * 500),
        KeyError("validation"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_hub_that_cannot_be_reached(fake_hub, error):
    fake_hub.result = error
    with pytest.raises(HubUnavailable, match=f"{type(error).__name__}.*--data DIR or --data sample") as caught:
        open_corpus("wikitext-103").text("val")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 350
    assert caught.value.__cause__ is error


def test_hub_without_the_split_or_with_a_foreign_package(fake_hub):
    fake_hub.result = {"train": {"text": ROWS}}
    with pytest.raises(HubUnavailable, match="KeyError"):
        open_corpus("wikitext-103").text("test")
    del fake_hub.load_dataset
    with pytest.raises(HubUnavailable, match="AttributeError"):
        open_corpus("wikitext-103").text("test")


def test_hub_memory_error_stays_one(fake_hub):
    fake_hub.result = MemoryError()
    with pytest.raises(MemoryError):
        open_corpus("wikitext-103").text("test")


@pytest.fixture
def unimported(monkeypatch):
    """`datasets` installed, as far as the settings can see, and not imported yet; an environment that says nothing."""
    for name in ("datasets", "huggingface_hub"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT", "HF_ENDPOINT"):
        monkeypatch.setenv(name, "")  # registered, so that what the code sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr(corpus_module, "find_spec", lambda name: object())
    monkeypatch.setattr(corpus_module, "getproxies", dict)
    tried = []

    def connect(address, timeout):
        tried.append((address, timeout))
        raise OSError("unreachable")

    monkeypatch.setattr(corpus_module.socket, "create_connection", connect)
    return tried


def test_hub_settings_offline(unimported):
    assert "no connection" in corpus_module._hub_settings()
    assert unimported == [(("huggingface.co", 443), 5)]
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["HF_DATASETS_OFFLINE"] == "1"
    assert int(os.environ["HF_HUB_ETAG_TIMEOUT"]) <= 10 and int(os.environ["HF_HUB_DOWNLOAD_TIMEOUT"]) <= 10


def test_hub_settings_leave_the_users_own_alone(unimported, monkeypatch):
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "77")
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example:8080")
    corpus_module._hub_settings()
    assert os.environ["HF_HUB_ETAG_TIMEOUT"] == "77" and unimported == [(("mirror.example", 8080), 5)]
    assert corpus_module._hub_settings() == "" and len(unimported) == 1  # offline by now: not tried again


def test_hub_settings_online_and_behind_a_proxy(unimported, monkeypatch):
    monkeypatch.setattr(corpus_module, "getproxies", lambda: {"https": "http://proxy.example"})
    assert corpus_module._hub_settings() == "" and not unimported
    monkeypatch.setattr(corpus_module, "getproxies", dict)
    monkeypatch.setattr(corpus_module.socket, "create_connection", lambda address, timeout: types.SimpleNamespace(close=lambda: None))
    assert corpus_module._hub_settings() == "" and "HF_HUB_OFFLINE" not in os.environ


def test_offline_cause_is_in_the_message(fake_hub, monkeypatch):
    monkeypatch.setattr(corpus_module, "_hub_settings", lambda: "no connection, and no copy in the cache: ")
    fake_hub.result = ConnectionError("OfflineModeIsEnabled")
    with pytest.raises(HubUnavailable, match=r"\(no connection, and no copy in the cache: ConnectionError: OfflineModeIsEnabled\)"):
        open_corpus("wikitext-103").text("val")


def test_the_library_prints_nothing(tmp_path, fake_hub, capfd):
    write(tmp_path / "wiki.train.raw", RELEASE)
    for data in ("sample", "wikitext-103", tmp_path, tmp_path / "wiki.train.raw"):
        open_corpus(data).text("train")
    assert capfd.readouterr() == ("", "")
