"""storage.py: what is written is whole or not there; what is read is checked, and the message names the file."""

import builtins
import errno
import hashlib
import json
import os
import shutil
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest

from charstat import placing, storage
from charstat.alphabet import Alphabet
from charstat.counting import build_model
from charstat.errors import FormatError, ResourceError
from charstat.manifest import seal
from charstat.model import Model
from charstat.ngram.classes import TOPICS, WordClasses
from charstat.storage import COLUMNS, HEADER_BYTES, DirectoryColumns, MemoryColumns, npy_header

TEXT = "the cat sat on the mat, and the rat sat on the cat.\n" * 6


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m"
    classes = WordClasses(np.array([1, 2], np.uint64), np.array([[1, 2], [3, 4]], np.uint16), np.ones((2, TOPICS), np.int8))
    options = {"contexts": "default,p.k1,p.topic", "alphabet": Alphabet.from_text(TEXT), "classes": classes}
    build_model(TEXT, order=4, threads=1, models=("mix", "ctw"), held_out_chars=40, out=path, **options)
    return path


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "m"))


def snapshot(path: Path) -> dict[str, str]:
    """Every file under a directory, hidden ones included, with its checksum."""
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(path.rglob("*")) if p.is_file()}


def predictions(model: Model) -> list[float]:
    stream = model.stream()
    stream.reset()
    return stream.score("the rat\n").tolist()


def change_manifest(path: Path, change) -> None:
    """Changes the manifest and seals it again, as somebody would who means it."""
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_bytes(seal(manifest))


# Reading: every kind of damage.


def test_no_directory(tmp_path):
    with pytest.raises(FormatError, match="no model at .*nowhere.*charstat build"):
        Model.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FormatError, match="no model at .*file"):
        Model.load(tmp_path / "file")
    with pytest.raises(FormatError, match="no model at"):
        Model.load(tmp_path / ("x" * 300))


def test_foreign_directories(tmp_path):
    with pytest.raises(FormatError, match=r"has no manifest\.json"):
        Model.load(tmp_path)
    assert placing.peek(tmp_path) is None
    for foreign in ('{"format": "other"}', "[]", "7", "null", "{}"):
        (tmp_path / "manifest.json").write_text(foreign)
        with pytest.raises(FormatError, match="not a charstat model"):
            Model.load(tmp_path)
        assert placing.peek(tmp_path) is None


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe{}", b'{"format": "charstat-model"'])
def test_unreadable_manifest(copy, damage):
    (copy / "manifest.json").write_bytes(damage)
    with pytest.raises(FormatError, match=r"manifest\.json cannot be read"):
        Model.load(copy)
    assert placing.peek(copy) is None


@pytest.mark.parametrize("version", [0, 1, 2, 4, 3.0, "1.0", True, None])
def test_other_versions(copy, version):
    change_manifest(copy, lambda m: m.update(format_version=version))
    with pytest.raises(FormatError, match=f"format version {version}; this charstat reads version 3: build it again"):
        Model.load(copy)


@pytest.mark.parametrize("column", COLUMNS)
def test_missing_array(copy, column):
    (copy / f"{column}.npy").unlink()
    with pytest.raises(FormatError, match=rf"{column}\.npy is missing"):
        Model.load(copy)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("keep", [0, 50, HEADER_BYTES, -1])
def test_truncated_array(copy, column, keep):
    file = copy / f"{column}.npy"
    data = file.read_bytes()
    file.write_bytes(data[:keep])
    with pytest.raises(FormatError, match=rf"{column}\.npy has .* bytes where {len(data):,} are expected"):
        Model.load(copy)
    file.write_bytes(data + b"\0")
    with pytest.raises(FormatError, match=rf"{column}\.npy has"):
        Model.load(copy)


@pytest.mark.parametrize("column", COLUMNS)
def test_changed_array(copy, column):
    """One bit in the middle: the checksum tells, if the invariants do not; "fast" looks at types and sizes."""
    file = copy / f"{column}.npy"
    data = bytearray(file.read_bytes())
    middle = (HEADER_BYTES + len(data)) // 2
    data[middle] ^= 1
    file.write_bytes(data)
    with pytest.raises(FormatError, match=rf"{column}\.npy was changed|damaged: .*(npy|trie|table)"):
        Model.load(copy)
    data[middle] ^= 1
    file.write_bytes(data)
    Model.load(copy)


def test_wrong_header(copy):
    """Another type of the same width, Fortran order, other magic, a pickle."""
    size = json.loads((copy / "manifest.json").read_text())["arrays"]["rows"]["size"]
    data = (copy / "rows.npy").read_bytes()
    good = npy_header(np.dtype(np.uint32), size)
    assert data[:HEADER_BYTES] == good
    for header in (
        npy_header(np.dtype(np.int32), size),
        npy_header(np.dtype(np.float32), size),
        npy_header(np.dtype(">u4"), size),
        npy_header(np.dtype(np.uint32), size + 1),
        good.replace(b"False", b"True "),
        b"\x80\x04" + good[2:],
    ):
        (copy / "rows.npy").write_bytes(header + data[HEADER_BYTES:])
        with pytest.raises(FormatError, match=r"rows\.npy does not hold the array"):
            Model.load(copy)


def test_an_array_that_cannot_be_opened(copy, monkeypatch):
    real = os.open

    def refuse(file, *args, **kwargs):
        if str(file).endswith("sums.npy"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(file, *args, **kwargs)

    monkeypatch.setattr(placing.os, "open", refuse)
    with pytest.raises(FormatError, match=r"sums\.npy cannot be read: Permission denied"):
        Model.load(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("alphabet"), lambda m: m.pop("tables"), lambda m: m.pop("words"), lambda m: m.update(alphabet=None), lambda m: m.update(tables=[]),
        lambda m: m.update(tables=7), lambda m: m.update(words="many"), lambda m: m["alphabet"].update(chars="ab"), lambda m: m["alphabet"].update(tree="(("),
        lambda m: m["alphabet"].pop("rare"), lambda m: m["tables"].update(nonsense=m["tables"]["o1"]), lambda m: m["tables"]["o1"].pop("bits"),
        lambda m: m["tables"].update(o1=None), lambda m: m["tables"]["o1"].update(rows="7"), lambda m: m["tables"].pop("o1"), lambda m: m["tables"].clear(),
        lambda m: m.update(text=[1]), lambda m: m.update(data="x"), lambda m: m.update(build="x"), lambda m: m.update(start=3),
    ],
)  # fmt: skip
def test_damaged_manifest(copy, change):
    change_manifest(copy, change)
    with pytest.raises(FormatError, match=r"manifest .*damaged"):
        Model.load(copy)


def test_the_order_is_that_of_the_tables(copy):
    for wrong in ("x", 3, 24, 4.0, None):
        change_manifest(copy, lambda m, wrong=wrong: m.update(order=wrong))
        with pytest.raises(FormatError, match="damaged.*order"):
            Model.load(copy)
    change_manifest(copy, lambda m: m.pop("order"))
    assert Model.load(copy).order == 4


@pytest.mark.parametrize(
    "change",
    [lambda m: m.pop("arrays"), *(lambda m, v=v: m.update(arrays=v) for v in (None, [], 3, "x", {}, {"buckets": 3}, {"buckets": {}}))],
)
def test_manifest_without_arrays(copy, change):
    change_manifest(copy, change)
    with pytest.raises(FormatError, match=r"manifest\.json does not describe the array buckets"):
        Model.load(copy)


@pytest.mark.parametrize("delta", [-1, 1, 1 << 20, -(1 << 20)])
@pytest.mark.parametrize("field", ["bits", "start_bits", "contexts", "rows", "bucket_at", "record_at", "row_at", "sum_at"])
@pytest.mark.parametrize("table", ["o3", "p.w1"])
def test_tampered_tables(copy, table, field, delta):
    """Kernels trust these numbers: each of them, changed a little or a lot, is refused, never read out of bounds."""
    table = "p.w1" if field == "sum_at" else table
    change_manifest(copy, lambda m: m["tables"][table].update({field: m["tables"][table][field] + delta}))
    with pytest.raises(FormatError, match=r"manifest of .*m is damaged"):
        Model.load(copy)


@pytest.mark.parametrize("words", [lambda n: 0, lambda n: -1, lambda n: n - 1, lambda n: n + 1])
def test_tampered_words(copy, words):
    change_manifest(copy, lambda m: m.update(words=words(m["words"])))
    with pytest.raises(FormatError, match="damaged"):
        Model.load(copy)


# Writing: whole or not at all.


def test_other_places_are_refused(tmp_path, model):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"format": "other"}')
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe")
    before = snapshot(tmp_path)
    for name, message in (
        ("file", "not a directory: choose another --out"),
        ("link", "not a directory: choose another --out"),
        ("full", "other files, not a charstat model: choose another --out"),
        ("other", "other files, not a charstat model: choose another --out"),
        ("pipe", "not a directory: choose another --out"),
    ):
        with pytest.raises(FormatError, match=f"{name}.*{message}"):
            model.save(tmp_path / name)
        with pytest.raises(FormatError, match=f"{name}.*{message}"):
            build_model(TEXT, order=1, threads=1, out=tmp_path / name)
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "elsewhere").exists()


def test_an_empty_directory_is_taken(tmp_path):
    (tmp_path / "m").mkdir()
    build_model(TEXT, order=1, threads=1, out=tmp_path / "m")
    assert placing.peek(tmp_path / "m") is not None and [p.name for p in tmp_path.iterdir()] == ["m"]


def test_an_earlier_model_is_replaced(copy, tmp_path):
    earlier = Model.load(copy)
    wanted = predictions(earlier)
    newer = build_model("something else entirely\n" * 9, order=2, threads=1, out=copy)
    assert newer.alphabet.chars == Model.load(copy).alphabet.chars != earlier.alphabet.chars
    assert predictions(earlier) == wanted  # who still has the earlier one open keeps it
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("place", ["file/m", "file/deeper/m", "m" * 300])
def test_places_where_nothing_can_be(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ResourceError, match="cannot write a model at"):
        build_model(TEXT, order=1, threads=1, out=tmp_path / place)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_read_only_parent(tmp_path, monkeypatch):
    """Where the temporary directory cannot be made (root may write anywhere, so the refusal is played)."""

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(placing.tempfile, "mkdtemp", refuse)
    with pytest.raises(ResourceError, match="cannot write a model at .*m: Permission denied"):
        build_model(TEXT, order=1, threads=1, out=tmp_path / "m")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_really_read_only_parent(tmp_path):
    (tmp_path / "shut").mkdir(mode=0o555)
    with pytest.raises(ResourceError, match="Permission denied"):
        build_model(TEXT, order=1, threads=1, out=tmp_path / "shut" / "m")


class FullDisk:
    """A file that takes `room` more bytes, all files together, and then has no space left."""

    def __init__(self, file, disk):
        self._file, self._disk = file, disk

    def write(self, data):
        self._disk["room"] -= len(data)
        if self._disk["room"] < 0:
            raise OSError(self._disk["errno"], os.strerror(self._disk["errno"]))
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self._file.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.6, 0.95, 1.0])
def test_full_disk(copy, tmp_path, monkeypatch, code, share):
    """Full at any time: on opening, in the arrays, at the very last byte. The earlier model is untouched, nothing is left behind."""
    needed = build_model(TEXT, order=6, threads=1).n_bytes + 2 * HEADER_BYTES * len(COLUMNS)  # headers are written twice
    before = snapshot(tmp_path)
    disk = {"room": int(share * (needed - 1)), "errno": code}
    real = builtins.open

    def full(file, mode="r", *args, **kwargs):
        opened = real(file, mode, *args, **kwargs)
        return FullDisk(opened, disk) if str(file).startswith(str(tmp_path)) and "w" in mode else opened

    monkeypatch.setattr(builtins, "open", full)
    reason = "Input/output error" if code == errno.EIO else "the disk is full"
    with pytest.raises(ResourceError, match=f"cannot write the model at .*m: {reason}.*unchanged"):
        build_model(TEXT, order=6, threads=1, out=copy)
    monkeypatch.undo()
    assert disk["room"] < 0
    assert snapshot(tmp_path) == before and [p.name for p in tmp_path.iterdir()] == ["m"]


def test_full_disk_at_the_manifest(copy, tmp_path, monkeypatch):
    before = snapshot(tmp_path)

    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.Path, "write_bytes", full)
    with pytest.raises(ResourceError, match="the disk is full"):
        build_model(TEXT, order=6, threads=1, out=copy)
    monkeypatch.undo()
    assert snapshot(tmp_path) == before and [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("failure", [OSError(errno.EBUSY, "busy"), KeyboardInterrupt()])
@pytest.mark.parametrize("which", [1, 2])
def test_the_exchange_fails(copy, tmp_path, monkeypatch, failure, which):
    """An error or Ctrl-C at either of the two renames that put the new model in place: the earlier one is back."""
    before = snapshot(tmp_path)
    calls = []
    real = os.rename

    def rename(a, b):
        calls.append((a, b))
        if len(calls) == which:
            raise failure
        real(a, b)

    monkeypatch.setattr(placing, "exchange", lambda a, b: False)
    monkeypatch.setattr(placing.os, "rename", rename)
    with pytest.raises(ResourceError if isinstance(failure, OSError) else KeyboardInterrupt):
        build_model(TEXT, order=6, threads=1, out=copy)
    monkeypatch.undo()
    assert snapshot(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    Model.load(copy)


def test_the_earlier_model_survives_even_when_it_cannot_be_put_back(copy, tmp_path, monkeypatch):
    """Both the exchange and its undoing fail, or the process ends there: whoever loads next puts the earlier model back."""
    before = snapshot(copy)
    calls = []
    real = os.rename

    def rename(a, b):
        calls.append(a)
        if len(calls) > 1:
            raise OSError(errno.EIO, "Input/output error")
        real(a, b)

    monkeypatch.setattr(placing, "exchange", lambda a, b: False)
    monkeypatch.setattr(placing.os, "rename", rename)
    with pytest.raises(ResourceError):
        build_model(TEXT, order=6, threads=1, out=copy)
    monkeypatch.undo()
    assert not copy.exists()
    Model.load(copy)
    assert snapshot(copy) == before and [p.name for p in tmp_path.iterdir()] == ["m"]


def test_an_interrupt_while_the_files_are_opened(tmp_path, monkeypatch):
    real = builtins.open

    def interrupted(file, *args, **kwargs):
        if str(file).endswith("rows.npy"):
            raise KeyboardInterrupt
        return real(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_model(TEXT, order=2, threads=1, out=tmp_path / "m")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_discard(tmp_path):
    columns = DirectoryColumns(tmp_path / "m")
    columns.append("rows", np.arange(5, dtype=np.uint32))
    assert len(list(tmp_path.iterdir())) == 1
    columns.discard()
    columns.discard()
    assert list(tmp_path.iterdir()) == []


# Columns.


def test_columns_grow(tmp_path):
    """Parts appended in turn, to memory and to disk: where each starts, and the whole."""
    memory, disk = MemoryColumns(), DirectoryColumns(tmp_path / "m")
    parts = [np.arange(3), np.arange(0), np.arange(7, 300), np.arange(1, dtype=np.int64)]
    for columns in (memory, disk):
        assert [columns.append("rows", p.astype(np.uint32)) for p in parts] == [0, 3, 3, 296]
        assert columns.append("records", np.array([2**64 - 1], np.uint64)) == 0
    manifest, on_disk = disk.commit({})
    assert storage.open_model(tmp_path / "m")[0] == manifest
    in_memory = memory.finish()
    assert list(on_disk) == list(in_memory) == list(COLUMNS)
    for name, dtype in COLUMNS.items():
        assert on_disk[name].dtype == in_memory[name].dtype == dtype
        assert np.array_equal(on_disk[name], in_memory[name])
        assert not on_disk[name].flags.writeable and not in_memory[name].flags.writeable
    assert on_disk["rows"].tolist() == np.concatenate(parts).tolist() and on_disk["records"].tolist() == [2**64 - 1]


def test_parts_are_free_once_they_are_added():
    columns = MemoryColumns()
    for n in (1000, 1, 100_000):
        part = np.full(n, n, np.uint32)
        gone = weakref.ref(part)
        columns.append("rows", part)
        del part
        assert gone() is None
    rows = columns.finish()["rows"]
    assert rows.base is None and rows.tolist() == [1000] * 1000 + [1] + [100_000] * 100_000


def test_columns_take_the_memory_of_what_is_in_them():
    tracemalloc.start()
    try:
        columns = MemoryColumns()
        for _ in range(20):
            columns.append("records", np.ones(10_000, np.uint64))
        finished = columns.finish()
        assert tracemalloc.get_traced_memory()[0] < finished["records"].nbytes + 50_000
    finally:
        tracemalloc.stop()
    assert finished["records"].size == 200_000 and finished["records"].all()


@pytest.mark.parametrize("limit", [1000, 1400, 4000])
def test_columns_without_room_to_spare(monkeypatch, limit):
    """A system that grants no more address space than so many values: room for the values themselves must do."""
    empty, asked = np.empty, []

    def refuse(size, dtype):
        asked.append(size)
        if size > limit:
            raise MemoryError
        return empty(size, dtype)

    columns = MemoryColumns()
    with monkeypatch.context() as patch:
        patch.setattr(storage.np, "empty", refuse)
        for i in range(10):
            assert columns.append("rows", np.full(100, i)) == 100 * i
    assert max(asked) > limit
    assert columns.finish()["rows"].tolist() == [i for i in range(10) for _ in range(100)]


@pytest.mark.parametrize("size", [0, 1, 10**6, 2**33, 2**62])
@pytest.mark.parametrize("dtype", sorted({np.dtype(d).str for d in COLUMNS.values()}))
def test_npy_header(tmp_path, dtype, size):
    """NumPy's own reader agrees, for any length."""
    header = npy_header(np.dtype(dtype), size)
    assert len(header) == HEADER_BYTES
    (tmp_path / "h.npy").write_bytes(header)
    with open(tmp_path / "h.npy", "rb") as f:
        assert np.lib.format.read_magic(f) == (1, 0)
        assert np.lib.format.read_array_header_1_0(f) == ((size,), False, np.dtype(dtype))
