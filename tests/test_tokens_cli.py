"""Token models on the command line, and files of ids."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from charstat import TokenModel, build_tokens
from charstat.cli import cli
from charstat.errors import CorpusError
from charstat.tokens.shards import HEADER, read_ids, read_pieces, write_shard

PIECES = [bytes([c]) for c in b"abcdefg ."]


@pytest.fixture
def ids():
    return np.random.default_rng(1).integers(0, len(PIECES), 3000).astype(np.uint16)


def run(*args):
    return CliRunner().invoke(cli, list(map(str, args)))


def test_files_of_ids(ids, tmp_path):
    write_shard(tmp_path / "a.bin", ids)
    assert (tmp_path / "a.bin").stat().st_size == 4 * HEADER + 2 * ids.size
    assert np.array_equal(read_ids(tmp_path / "a.bin"), ids)
    for dtype in (np.uint8, np.uint32, np.int64):
        np.save(tmp_path / "a.npy", ids.astype(dtype))
        assert np.array_equal(read_ids(tmp_path / "a.npy"), ids)


def test_files_that_are_none(ids, tmp_path):
    write_shard(tmp_path / "good.bin", ids)
    good = (tmp_path / "good.bin").read_bytes()
    other = bytearray(good)
    other[4] = 2
    bad = {
        "short.bin": (good[:500], "neither"),
        "cut.bin": (good[:-1], "does not have the 3,000 tokens"),
        "long.bin": (good + b"\0\0", "does not have"),
        "text.bin": (b"just text " * 300, "neither"),
        "version.bin": (bytes(other), "version 2"),
        "negative.bin": (good[:8] + b"\xff" * 4 + good[12:], "-1 tokens"),
        "text.npy": (b"just text", "no array of ids"),
    }
    for name, (data, says) in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CorpusError, match=says):
            read_ids(tmp_path / name)
    np.save(tmp_path / "float.npy", np.zeros(3))
    np.save(tmp_path / "rows.npy", np.zeros((3, 3), int))
    for name in ("float.npy", "rows.npy"):
        with pytest.raises(CorpusError, match="whole numbers in one dimension"):
            read_ids(tmp_path / name)
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    with pytest.raises(CorpusError, match="no array of ids"):
        read_ids(tmp_path / "objects.npy")
    with pytest.raises(CorpusError, match="cannot be read"):
        read_ids(tmp_path / "none.npy")
    for name, data in {"a.json": "[1]", "b.json": '["x"]', "c.json": "{", "d.json": "3"}.items():
        (tmp_path / name).write_text(data)
        with pytest.raises(CorpusError, match="hexadecimal"):
            read_pieces(tmp_path / name)


def test_build_and_inspect(ids, tmp_path):
    np.save(tmp_path / "one.npy", ids[:1000])
    write_shard(tmp_path / "two.bin", ids[1000:])
    (tmp_path / "pieces.json").write_text(json.dumps([piece.hex() for piece in PIECES]))
    files = ["--tokens", tmp_path / "one.npy", "--tokens", tmp_path / "two.bin", "--vocab-size", len(PIECES)]
    built = run("build", *files, "--pieces", tmp_path / "pieces.json", "--order", 3, "--backend", "cpu", "--out", tmp_path / "m", "--json")
    assert built.exit_code == 0, built.output
    found = json.loads(built.stdout)
    assert found["tokens"] == 3000 and found["vocab_size"] == 9 and found["token_bytes"] and "p.w1" in found["contexts"]
    whole, loaded = build_tokens(ids, 9, order=3, token_bytes=PIECES, backend="cpu"), TokenModel.load(tmp_path / "m")
    assert all(np.array_equal(whole.columns[name], loaded.columns[name]) for name in whole.columns)
    inspected = json.loads(run("inspect", tmp_path / "m", "--json").stdout)
    assert inspected["contexts"] == found["contexts"] and inspected["bytes"] == sum(f.stat().st_size for f in (tmp_path / "m").iterdir())
    shown = run("inspect", tmp_path / "m")
    assert shown.exit_code == 0 and "Token model" in shown.output and "3,000" in shown.output and "p.w1" in shown.output
    held = run("build", *files, "--order", 2, "--held-out", 500, "--limit", 2000, "--backend", "cpu", "--out", tmp_path / "m")
    assert held.exit_code == 0 and "learned from 500 tokens" in held.output and "1,500" in held.output


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--tokens", "ids.npy"], "needs --vocab-size"),
        (["--vocab-size", "9"], "pass that, too"),
        (["--tokens", "ids.npy", "--vocab-size", "9", "--data", "x.txt"], "--data is for texts"),
        (["--tokens", "ids.npy", "--vocab-size", "9", "--bytes"], "--bytes is for texts"),
        (["--tokens", "ids.npy", "--vocab-size", "9", "--models", "ctw"], "--models is for texts"),
        (["--tokens", "ids.npy", "--vocab-size", "8"], "ids\\["),
        (["--tokens", "ids.npy", "--vocab-size", "9", "--order", "17"], "order must be"),
        (["--tokens", "ids.npy", "--vocab-size", "9", "--contexts", "words"], "no token context"),
        (["--tokens", "none.npy", "--vocab-size", "9"], "cannot be read"),
        (["--tokens", "empty.npy", "--vocab-size", "9"], "no tokens"),
        (["--tokens", "ids.npy", "--vocab-size", "9", "--pieces", "none.json"], "cannot be read"),
    ],
)
def test_what_is_refused(args, says, ids, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ids[0] = 8
    np.save("ids.npy", ids)
    np.save("empty.npy", ids[:0])
    result = run("build", "--out", "m", *args)
    assert result.exit_code == 2 and not (tmp_path / "m").exists(), result.output
    assert re.search(says, result.stderr) and "Traceback" not in result.stderr


def test_a_token_model_is_not_a_character_model(ids, tmp_path):
    np.save(tmp_path / "ids.npy", ids)
    assert run("build", "--tokens", tmp_path / "ids.npy", "--vocab-size", 9, "--order", 1, "--out", tmp_path / "m").exit_code == 0
    (tmp_path / "text.txt").write_text("some text " * 50)
    for args in (["eval", "--model", tmp_path / "m", "--data", tmp_path / "text.txt"], ["inspect", tmp_path / "m", "--mixer"]):
        result = run(*args)
        assert result.exit_code == 2 and "it is a token model" in result.stderr


def test_a_model_cut_to_a_size_and_what_it_took(ids, tmp_path):
    np.save(tmp_path / "ids.npy", ids)
    files = ["--tokens", tmp_path / "ids.npy", "--vocab-size", 9, "--order", 4, "--backend", "cpu"]
    whole = json.loads(run("build", *files, "--out", tmp_path / "whole", "--json").stdout)
    assert whole["pruned"] is None and whole["energy"]["seconds"] > 0 and whole["counting_seconds"] >= whole["energy"]["seconds"]
    assert {"o4", "t2"} <= {phase["name"] for phase in whole["phases"]}
    small = run("build", *files, "--out", tmp_path / "small", "--max-bytes", 60_000, "--json")
    assert small.exit_code == 0, small.output
    found = json.loads(small.stdout)
    assert found["bytes"] == sum(f.stat().st_size for f in (tmp_path / "small").iterdir()) <= 60_000 < whole["bytes"]
    assert found["pruned"]["min_count"] > 1 and "held_out" not in found["pruned"]
    held = run("build", *files, "--out", tmp_path / "small", "--min-count", 3, "--held-out", 600, "--json")
    assert held.exit_code == 0 and json.loads(held.stdout)["pruned"]["held_out"]["tokens"] == 600
    shown = " ".join(run("inspect", tmp_path / "small").output.split())
    assert "contexts seen" in shown and "Cost of the cut" in shown and "Energy of counting" in shown
    least = run("build", *files, "--out", tmp_path / "none", "--max-bytes", 1000)
    assert least.exit_code == 2 and "still takes" in least.output and not (tmp_path / "none").exists()


def test_an_audit_of_a_directory(ids, tmp_path):
    np.save(tmp_path / "ids.npy", ids)
    write_shard(tmp_path / "ids.bin", ids)
    for pieces in (PIECES, None):
        build_tokens(ids[:2000], 9, order=2, token_bytes=pieces, backend="cpu", out=tmp_path / "m")
        asked = ["audit", tmp_path / "m", "--from", 2000, "--chars", 80, "--probes", 10, "--positions", 3]
        for name in ("ids.npy", "ids.bin"):
            shown = run(*asked, "--text", tmp_path / name)
            assert shown.exit_code == 0 and "CLEAN" in shown.output and "80 tokens from 2,000 on" in " ".join(shown.output.split())
            assert ("bits/byte" if pieces else "bits/token") in shown.output
        found = json.loads(run(*asked, "--text", tmp_path / "ids.npy", "--json").stdout)
        assert found["tokens"] == 80 and found["clean"] and found["bytes"] == (80 if pieces else 0)
    (tmp_path / "text.txt").write_text("some text " * 200)
    for args, says in (
        (["--text", tmp_path / "text.txt"], "neither a .npy array nor a shard"),
        (["--text", tmp_path / "ids.npy", "--predictor", "mix"], "token model"),
        (["--text", tmp_path / "ids.npy", "--from", 2999], "fewer than two"),
    ):
        refused = run(*asked[:2], *args)
        assert refused.exit_code == 2 and says in " ".join(refused.output.split()), refused.output
