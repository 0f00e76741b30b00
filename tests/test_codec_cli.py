"""`charstat compress` and `charstat decompress`: what is written where, and what is refused."""

import io
import json
import os

import pytest
from click.testing import CliRunner

from charstat.cli import cli


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def invoke(*args, stdin=None, status=0):
        result = CliRunner().invoke(cli, [str(a) for a in args], input=stdin)
        assert result.exit_code == status, result.output + str(result.exception)
        return result

    return invoke


@pytest.fixture
def text_file(tmp_path, english):
    path = tmp_path / "topics.txt"
    path.write_bytes(english[:4000].encode())
    path.chmod(0o640)
    return path


@pytest.fixture(scope="module")
def model_dir(model, tmp_path_factory):
    return model.save(tmp_path_factory.mktemp("models") / "mine").path


def test_a_file_there_and_back(run, text_file):
    data = text_file.read_bytes()
    assert "tested" in run("compress", "topics.txt", "--test").stdout
    packed = text_file.with_name("topics.txt.cst")
    assert packed.stat().st_size < 0.5 * len(data) and packed.stat().st_mode & 0o777 == 0o640
    text_file.unlink()
    run("decompress", "topics.txt.cst")
    assert text_file.read_bytes() == data
    assert sorted(os.listdir()) == ["topics.txt", "topics.txt.cst"]


def test_with_a_model_and_json(run, text_file, model_dir):
    result = json.loads(run("compress", "topics.txt", "--model", model_dir, "--json").stdout)
    (row,) = result["files"]
    assert row["mode"] == "with a model" and row["bytes"] == text_file.stat().st_size
    assert row["compressed_bytes"] == os.stat("topics.txt.cst").st_size
    back = json.loads(run("decompress", "topics.txt.cst", "--model", model_dir, "--json", "-o", "back").stdout)["files"][0]
    assert back["bytes"] == text_file.stat().st_size and text_file.with_name("back").read_bytes() == text_file.read_bytes()
    error = run("decompress", "topics.txt.cst", "-o", "again", status=2).stderr
    assert error.startswith("error: topics.txt.cst: compressed with the model mine (checksum ") and error.count("\n") == 1
    assert not os.path.exists("again")


def test_several_files(run, tmp_path):
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * 50)
    run("compress", "a", "b", "c", "--order", "3")
    for name in "abc":
        (tmp_path / name).unlink()
    run("decompress", "a.cst", "b.cst", "c.cst")
    assert [(tmp_path / name).read_bytes() for name in "abc"] == [name.encode() * 50 for name in "abc"]
    assert "names one file, and there are 2" in run("compress", "a", "b", "-o", "x", status=2).stderr
    assert "named twice" in run("compress", "a", "a", status=2).stderr


def test_pipes(run):
    packed = run("compress", "-", stdin=b"to be or not to be").stdout_bytes
    assert run("decompress", "-", stdin=packed).stdout_bytes == b"to be or not to be"
    assert "cannot both go to stdout" in run("compress", "-", "--json", stdin=b"x", status=2).stderr


def test_nothing_is_overwritten_without_force(run, tmp_path):
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "a.cst").write_bytes(b"old")
    assert "a.cst exists: --force overwrites it" in run("compress", "a", status=2).stderr
    assert (tmp_path / "a.cst").read_bytes() == b"old"
    run("compress", "a", "--force")
    (tmp_path / "a").write_bytes(b"precious")
    assert "a exists: --force" in run("decompress", "a.cst", status=2).stderr
    assert (tmp_path / "a").read_bytes() == b"precious"
    run("decompress", "a.cst", "--force")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_test_writes_nothing(run, tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100)
    run("compress", "a")
    (tmp_path / "a").unlink()
    assert "tested" in run("decompress", "a.cst", "--test").stdout
    assert os.listdir() == ["a.cst"]


def test_a_damaged_file_leaves_nothing(run, tmp_path):
    (tmp_path / "a").write_bytes(b"abcdefg" * 100)
    run("compress", "a")
    packed = bytearray((tmp_path / "a.cst").read_bytes())
    packed[-20] ^= 1
    (tmp_path / "a.cst").write_bytes(packed)
    (tmp_path / "a").unlink()
    error = run("decompress", "a.cst", status=2).stderr
    assert error.startswith("error: a.cst: block 1 is damaged: ") and error.count("\n") == 1
    assert os.listdir() == ["a.cst"]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["compress", "missing"], "No such file or directory: 'missing'"),
        (["compress", "."], "Is a directory"),
        (["decompress", "plain"], "plain: its name does not end in .cst: say with -o"),
        (["decompress", "plain", "-o", "x"], "plain: not a file that charstat compressed"),
        (["compress", "plain", "--order", "99"], "order 99 is out of range"),
        (["compress", "plain", "--order", "3", "--model", "m"], "a model has its own"),
        (["compress", "plain", "--model", "m"], "no model at m"),
        (["compress", "plain", "-o", "no/such/place"], "No such file or directory"),
        (["compress"], "Missing argument"),
    ],
)
def test_mistakes(run, tmp_path, args, why):
    (tmp_path / "plain").write_bytes(b"plain")
    assert why in " ".join(run(*args, status=2).stderr.split())
    assert os.listdir() == ["plain"]


def test_compressed_bytes_do_not_go_to_a_terminal(monkeypatch):
    from charstat.errors import ResourceError
    from charstat.whole_files import check_free

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdout", Terminal())
    with pytest.raises(ResourceError, match="do not go to a terminal"):
        check_free("-", force=False)
    check_free("-", force=True)
