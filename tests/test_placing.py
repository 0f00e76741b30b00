"""placing.py: nothing is replaced but what a build wrote, in one step, whatever happens in between."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from test_storage import TEXT, copy, saved, snapshot  # noqa: F401 (fixtures)

from charstat import placing
from charstat.counting import build_model
from charstat.errors import FormatError, ResourceError
from charstat.facts import check_out
from charstat.model import Model
from charstat.storage import DirectoryColumns, placed_models

ROOT = Path(__file__).resolve().parents[1]
OTHER = "something else entirely\n" * 9


def build(path, text=OTHER):
    return build_model(text, order=2, threads=1, out=path)


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("put", ["notes.txt", "text.txt", "rows.npy/mine", "more/deeper/x", ".hidden", "notes.npy"])
def test_files_of_others_are_never_replaced(copy, tmp_path, monkeypatch, put, exchange):  # noqa: F811
    """Before a build, and at the last moment: in both cases it is refused, by name, and all is as it was."""
    if not exchange:
        monkeypatch.setattr(placing, "exchange", lambda a, b: False)
    if put.startswith("rows.npy"):
        (copy / "rows.npy").unlink()
    mine = copy / put
    columns = DirectoryColumns(copy)  # looks at the place
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(FormatError, match=rf"holds what charstat did not write \('{put.split('/')[0]}'\): move that elsewhere"):
        columns.commit({})
    columns.discard()
    assert snapshot(tmp_path) == {k: v for k, v in before.items() if k.startswith("m/")}
    with pytest.raises(FormatError, match="holds what charstat did not write"):
        build(copy)
    assert mine.read_text() == "mine" and [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("appears", ["file", "link", "pipe", "directory", "model"])
def test_what_appears_during_the_build(tmp_path, saved, appears):  # noqa: F811
    path = tmp_path / "m"
    columns = DirectoryColumns(path)
    make = {
        "file": lambda: path.write_text("mine"), "link": lambda: path.symlink_to(saved), "pipe": lambda: os.mkfifo(path),
        "directory": lambda: (path.mkdir(), (path / "x").write_text("mine")), "model": lambda: shutil.copytree(saved, path),
    }  # fmt: skip
    make[appears]()
    if appears == "model":
        build(path)
        assert Model.load(path).order == 2
        return
    mode, content = os.lstat(path).st_mode, snapshot(path)
    with pytest.raises(FormatError, match="choose another --out|move that elsewhere"):
        columns.commit({})
    columns.discard()
    assert os.lstat(path).st_mode == mode and snapshot(path) == content and [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_file_that_comes_between_the_exchange_and_the_removal(copy, monkeypatch):  # noqa: F811
    real = placing.remove_model
    seen = []

    def late(folder, *args):
        if folder.name.endswith(placing.NEW) and not seen:
            seen.append(folder)
            (folder / "late.txt").write_text("mine")
        real(folder, *args)

    monkeypatch.setattr(placing, "remove_model", late)
    build(copy)
    assert seen and (copy / "late.txt").read_text() == "mine"
    assert Model.load(copy).order == 2


def test_the_text_is_not_where_the_model_goes(tmp_path, monkeypatch):
    (tmp_path / "m" / "deep").mkdir(parents=True)
    text = tmp_path / "m" / "deep" / "t.txt"
    text.write_text(TEXT)
    (tmp_path / "link").symlink_to(tmp_path / "m" / "deep")
    for out in ("m", "m/deep", "link"):
        with pytest.raises(ResourceError, match="lies in .*choose another --out"):
            check_out(tmp_path / out, str(text))
    with pytest.raises(ResourceError, match="lies in"):
        check_out(tmp_path / "m", str(tmp_path / "link" / "t.txt"))
    assert check_out(tmp_path / "m2", str(text)) == tmp_path / "m2"


def test_links_and_dots_lead_where_the_system_says(tmp_path, monkeypatch):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("link").symlink_to("../far/away")
    assert check_out("link/../q") == tmp_path / "far" / "q"
    assert check_out("models/x") == Path("models/x") and check_out("./models//x/") == Path("models/x")
    assert check_out("../y") == tmp_path / "y"
    for above in (".", "..", "../..", "../here/", "/"):
        with pytest.raises(ResourceError, match="working directory"):
            check_out(above)


def test_leftovers_of_killed_builds_go(tmp_path):
    code = f"""
import os, signal
from charstat.storage import DirectoryColumns
columns = DirectoryColumns({str(tmp_path / "m")!r})
columns.append("rows", __import__("numpy").arange(5))
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    (left,) = tmp_path.iterdir()
    living = DirectoryColumns(tmp_path / "m")  # sweeps
    assert not left.exists()
    (tmp_path / ".m.abcdefgh.charstat-new").mkdir()
    (tmp_path / ".m.abcdefgh.charstat-new" / "mine.txt").write_text("mine")
    build(tmp_path / "m")
    assert living._temp.exists() and (tmp_path / ".m.abcdefgh.charstat-new" / "mine.txt").exists()
    living.discard()


def test_an_interrupt_waits_until_names_have_changed_hands(copy, monkeypatch):  # noqa: F811
    """SIGINT in the middle of the exchange: the new model is complete, and placed_models() says that it is there."""
    real = placing.exchange
    here = copy.absolute()

    def interrupted(a, b):
        os.kill(os.getpid(), signal.SIGINT)
        return real(a, b)

    monkeypatch.setattr(placing, "exchange", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(copy)
    assert here in placed_models()
    assert Model.load(copy).order == 2 and [p.name for p in copy.parent.iterdir()] == ["m"]


def test_uninterrupted_hands_the_signal_on():
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with placing.uninterrupted():
            os.kill(os.getpid(), signal.SIGTERM)
            assert not came
            with placing.uninterrupted():
                pass
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
    worker = threading.Thread(target=lambda: placing.uninterrupted().__enter__())
    worker.start()
    worker.join()


def test_columns_that_are_dropped_leave_nothing(tmp_path):
    columns = DirectoryColumns(tmp_path / "m")
    del columns
    assert list(tmp_path.iterdir()) == []


def test_readers_see_one_model_while_it_is_replaced(tmp_path):
    """Two processes save two models to one path in turn; whoever loads gets one of the two, whole."""
    a, b = build_model(TEXT, order=3, threads=1), build_model(OTHER, order=2, threads=1)
    path = tmp_path / "m"
    a.save(path)
    sizes = {m.order: m.n_rows for m in (a, b)}
    stop = threading.Event()

    def replace():
        while not stop.is_set():
            b.save(path)
            a.save(path)

    writers = [threading.Thread(target=replace) for _ in range(2)]
    for w in writers:
        w.start()
    try:
        for _ in range(100):
            model = Model.load(path)
            assert sizes[model.order] == model.n_rows
    finally:
        stop.set()
        for w in writers:
            w.join()
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_build_reports_its_own_facts(tmp_path, monkeypatch):
    """Another model takes the place the moment that this one was put there: what is returned is this one."""
    real = placing.place

    def overtaken(temp, path):
        real(temp, path)
        monkeypatch.undo()
        build(path)

    monkeypatch.setattr("charstat.storage.place", overtaken)
    model = build_model(TEXT, order=4, threads=1, out=tmp_path / "m")
    assert model.order == 4 and model.n_rows == build_model(TEXT, order=4, threads=1).n_rows
    assert Model.load(tmp_path / "m").order == 2


def test_systems_without_exchange(tmp_path, monkeypatch):
    monkeypatch.setattr(placing, "exchange", lambda a, b: False)
    build(tmp_path / "m", TEXT)
    build(tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["m"] and Model.load(tmp_path / "m").order == 2


@pytest.mark.parametrize("code", placing.NO_EXCHANGE)
def test_file_systems_without_exchange(tmp_path, monkeypatch, code):
    class Library:
        @staticmethod
        def renameat2(*args):
            placing.ctypes.set_errno(code)
            return -1

    monkeypatch.setattr(placing.ctypes, "CDLL", lambda *a, **k: Library)
    assert placing.exchange(tmp_path / "a", tmp_path / "b") is False
    monkeypatch.undo()
    with pytest.raises(OSError) as e:
        placing.exchange(tmp_path / "a", tmp_path / "b")
    assert e.value.errno == errno.ENOENT


def test_pipes_are_not_waited_for(copy):  # noqa: F811
    (copy / "manifest.json").unlink()
    os.mkfifo(copy / "manifest.json")
    with pytest.raises(FormatError, match=r"manifest\.json cannot be read: not a regular file"):
        Model.load(copy)
    with pytest.raises(FormatError, match="other files"):
        build(copy)
    shutil.rmtree(copy)
