"""manifest.py: every field has a type and a range, the file has a checksum, and reading it costs what is said."""

import json

import pytest
from test_storage import change_manifest, copy, saved  # noqa: F401 (fixtures)

from charstat import manifest
from charstat.counting import build_model
from charstat.errors import FormatError, UserError
from charstat.model import Model


def test_a_sealed_manifest_is_json_and_every_byte_counts(copy):  # noqa: F811
    file = copy / "manifest.json"
    data = file.read_bytes()
    about = json.loads(data)
    assert manifest.seal(about) == data and list(about)[-1] == "sha256" and manifest.is_sealed(data)
    for at in range(0, len(data), 37):
        changed = bytearray(data)
        changed[at] ^= 1
        file.write_bytes(changed)
        with pytest.raises(FormatError):
            Model.load(copy, verify="fast")
    file.write_bytes(data + b"\n")
    with pytest.raises(FormatError, match="was changed after it was written"):
        Model.load(copy)


@pytest.mark.parametrize(
    "name, value",
    [("build.phases", 3), ("build.seconds", "x"), ("data", {"path": 1}), ("ctw.levels.o0", []), ("words", True), ("words", 1 << 63), ("tables.o1.sum_at", None),
     ("alphabet.chars", ["ab"]), ("alphabet.chars", ["a", "a"]), ("alphabet.rare", {"xy": 1}), ("alphabet.rare", {"☃": 0}), ("start.chars", 0.5),
     ("models", []), ("models", ["mix", 3]), ("models", ["../x"]), ("text.sha256", "f" * 63), ("text.chars", 1 << 63), ("build.energy", {"seconds": 1}),
     ("data", [1]), ("data", {"a": [[[[[[[[[[1]]]]]]]]]]}), ("build.notes", "x"), ("arrays.rows.dtype", 3), ("preset", 7), ("ctw.alpha", -1.0), ("order", 3),
     ("charstat_version", None), ("start.layout", "../../x"), ("build.merged", [3])],
)  # fmt: skip
def test_a_field_of_another_type_or_value(copy, name, value):  # noqa: F811
    def change(m):
        *path, last = name.split(".")
        for part in path:
            m = m[part]
        m[last] = value

    change_manifest(copy, change)
    with pytest.raises(FormatError, match="manifest of .* is damaged: ValueError"):
        Model.load(copy)


@pytest.mark.parametrize("field", ["bits", "start_bits", "contexts", "rows", "bucket_at", "record_at", "row_at", "sum_at"])
def test_a_table_without_a_field(copy, field):  # noqa: F811
    change_manifest(copy, lambda m: m["tables"]["o2"].pop(field))
    with pytest.raises(FormatError, match=rf"tables\.o2\.{field} is missing"):
        Model.load(copy)


@pytest.mark.parametrize("old, new", [("o4", "o5"), ("o4", "o04"), ("p.w1", "pfoo.w1"), ("p.w1", "p.w1.w1"), ("o4", "x"), ("p.w1", "p.w2")])
def test_renamed_tables(copy, old, new):  # noqa: F811
    def change(m):
        m["tables"] = {new if name == old else name: entry for name, entry in m["tables"].items()}

    change_manifest(copy, change)
    with pytest.raises(FormatError):
        Model.load(copy)


def test_unknown_names_and_other_orders_of_tables(copy):  # noqa: F811
    data = (copy / "manifest.json").read_bytes()
    for change in (
        lambda m: m.update(more=1), lambda m: m["tables"]["o1"].update(more=1), lambda m: m["arrays"].update(X={}), lambda m: m["build"].update(more=1),
        lambda m: m.update(tables=dict(reversed(m["tables"].items()))), lambda m: m["tables"].update({"o3": m["tables"].pop("o3")}),
    ):  # fmt: skip
        (copy / "manifest.json").write_bytes(data)
        change_manifest(copy, change)
        with pytest.raises(FormatError, match="no field that this charstat knows|in the order of their contexts|a name in arrays"):
            Model.load(copy)


@pytest.mark.parametrize(
    "data", [b"[" * 200_000, b'{"a":' * 100_000, b'{"format": NaN}', b'{"format": 1e999}', b"1" * 5000, b'{"a": Infinity}']
)
def test_json_that_cannot_be_read(copy, data):  # noqa: F811
    (copy / "manifest.json").write_bytes(data)
    with pytest.raises(FormatError, match=r"manifest\.json cannot be read|another format"):
        Model.load(copy)


def test_manifests_that_are_too_large(copy, monkeypatch):  # noqa: F811
    monkeypatch.setattr("charstat.storage.MAX_BYTES", 1000)
    with pytest.raises(FormatError, match=r"manifest\.json cannot be read: File too large"):
        Model.load(copy)
    monkeypatch.undo()
    monkeypatch.setattr(manifest, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="more than 1,000 bytes"):
        manifest.parse(b" " * 1001)


def test_a_description_of_the_callers_own(tmp_path):
    """It is kept as it is, if it is JSON and no deeper than the reader allows."""
    data = {"name": "mine", "shelf": [1, 2.5, None, {"row": "x"}], "limit": None}
    build_model("some text", order=1, data=data, out=tmp_path / "m", threads=1)
    assert Model.load(tmp_path / "m").manifest["data"] == data
    for wrong in ({"path": 3}, {"x": {1, 2}}, {"x": float("nan")}, {"x": b""}, [1], "x", {1: 2}, {"limit": 0}, {"x": 1 << 64}):
        with pytest.raises(UserError, match="cannot be kept with a model"):
            build_model("some text", order=1, data=wrong, out=tmp_path / "n", threads=1)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
