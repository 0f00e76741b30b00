"""bench/pictures.py: the records in bench/ as pictures, measured and unmeasured apart."""

import importlib.util
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def pictures():
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "bench" / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def circles(picture: str) -> dict[str, str]:
    """{what a point says: its class}"""
    found = ElementTree.fromstring(picture).iter(f"{SVG}circle")
    return {c.find(f"{SVG}title").text: c.get("class") for c in found if c.find(f"{SVG}title") is not None}


def test_the_contest(pictures):
    found = circles(pictures.contest(ROOT / "bench" / "contest"))
    for system in json.loads((ROOT / "bench" / "contest" / "recorded.json").read_text())["systems"]:
        joules = system["dev_j"] or system["main_j"]
        shown = found.get(f"{system['name']}: {joules:,.0f} J, {system['accuracy']:.4f}")
        assert (shown is not None) == (system["accuracy"] >= pictures.LOWEST)
        assert shown is None or shown.startswith("dot")
    ours = {told: name for told, name in found.items() if told.startswith("charstat gate")}
    assert len(ours) == 1


def test_what_is_not_measured_is_a_ring(pictures, tmp_path):
    for name in ("recorded.json", "gate-dev-cpu.json"):
        (tmp_path / name).write_bytes((ROOT / "bench" / "contest" / name).read_bytes())
    run = json.loads((tmp_path / "gate-dev-cpu.json").read_text()) | {"total_energy_J": 200.0, "val_char_accuracy": 0.71}
    for name, gross in (("gate", None), ("full", 300.0)):
        (tmp_path / f"{name}-dev-cpu.json").write_text(json.dumps(run | {"gpu_gross_J": gross}))
    found = circles(pictures.contest(tmp_path))
    assert found["charstat gate: 200 J, 0.7100"].startswith("ring") and found["charstat full: 200 J, 0.7100"].startswith("dot")


def test_the_frontier_is_of_those_that_no_other_one_beats(pictures):
    assert pictures.frontier([(1, 0.1), (2, 0.05), (3, 0.4), (4, 0.4), (5, 0.5)]) == [(1, 0.1), (3, 0.1), (3, 0.4), (5, 0.4), (5, 0.5)]


def test_bits_against_bytes(pictures, tmp_path):
    """Any file of the shape that the docstring describes is drawn; others are left alone."""
    rows = [{"series": "pruned", "name": f"{n} MB", "bytes": n * 10**6, "bits_per_char": 3 - n / 10} for n in (1, 5, 9)]
    (tmp_path / "sizes.json").write_text(json.dumps({"kind": "sizes", "title": "a < b", "rows": rows}))
    (tmp_path / "other.json").write_text(json.dumps({"rows": []}))
    assert pictures.sizes([tmp_path / "other.json"]) is None
    found = circles(pictures.sizes(sorted(tmp_path.glob("*.json"))))
    assert set(found) == {f"{row['name']}: {row['bytes']:,} bytes, {row['bits_per_char']:.4f} bits" for row in rows}


def test_the_command_draws_what_there_are_data_for(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pictures.py", "--out", str(tmp_path)])
    pictures.main()
    drawn = sorted(p.name for p in tmp_path.iterdir())
    assert {"contest.svg", "chars.svg"} <= set(drawn) == {p.name for p in (ROOT / "bench" / "pictures").iterdir()}
    assert len(capsys.readouterr().out.splitlines()) == 3
    for name in drawn:
        ElementTree.parse(tmp_path / name)
