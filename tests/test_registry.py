"""registry.py: one list of models, and everything that is read from it; former names; what imports what."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from charstat import ContextError, Model
from charstat.cli import cli
from charstat.counting import build_model
from charstat.ngram.contexts import select_contexts
from charstat.registry import DEFAULT_MODEL, ENTRIES, FORMER_NAMES, MODELS, check_models, model_named, needed_contexts, parse_models

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def model(train_text):
    return build_model(train_text[:20_000], order=3, contexts="o0,o1,o2,o3,p", models=("ctw", "mix"), held_out_chars=2000, threads=1)


def run(*args, code=0):
    result = CliRunner().invoke(cli, [str(a) for a in args])
    assert result.exit_code == code, result.output
    return result


def test_the_readme_has_the_models_of_the_registry():
    rows = re.findall(
        r"^\| `([a-z-]+)`( \(default\))? \| (.*) \| `(\w+)` \| (.*?) ?\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    wanted = [
        (
            entry.name,
            " (default)" if entry.name == DEFAULT_MODEL else "",
            entry.about,
            entry.contexts,
            ", ".join(["tree weights"] * entry.tree_weights + ["warm start"] * entry.warm_start),
        )
        for entry in ENTRIES
    ]
    table = "\n".join(
        f"| `{name}`{default} | {about} | `{contexts}` | {built}{' ' * bool(built)}|" for name, default, about, contexts, built in wanted
    )
    assert rows == wanted, f"the rows of README's table of models must be:\n{table}"


@pytest.mark.parametrize("name", MODELS)
def test_every_model_opens_and_says_what_it_needs(model, name):
    entry = MODELS[name]
    stream = model.char_model(name)
    stream.reset()
    assert abs(sum(stream.predict().values()) + stream.unlisted_mass - 1) < 1e-9
    assert bool(getattr(getattr(stream, "mixture", stream), "warm_start_chars", 0)) == entry.warm_start
    check_models([name], select_contexts(entry.contexts, 3))
    if entry.reads_order_0:
        with pytest.raises(ContextError, match=f"{name} reads the character orders from o0 up, and o0 is missing"):
            check_models([name], select_contexts("o1,p", 3))
    else:
        check_models([name], select_contexts("o1,p", 3))


def test_options_of_a_model_are_those_of_its_class(model):
    assert model.char_model("ctw", max_order=2).options.max_order == 2
    assert model.char_model("ppm").options.escape == "C" and model.char_model("ppm", escape="A").options.escape == "A"


@pytest.mark.parametrize(("models", "contexts"), [(["match"], "o0"), (["match", "ppm"], "chars"), (["ppm", "mix"], "default")])
def test_models_share_the_contexts_of_the_neediest(models, contexts):
    assert needed_contexts(models) == contexts


def test_lists_of_names():
    assert parse_models("ppm, mix,ppm") == parse_models(["ppm", "mix"]) == parse_models(["ppm,mix"]) == ["ppm", "mix"]
    for wrong in ("ppm,lstm", "", [], ["lstm"], None, 3, ["ppm", None]):
        with pytest.raises(ContextError, match=r"model.*choose from ppm, ppmc, ppm-inherit"):
            parse_models(wrong)


class TestFormerNames:
    def test_the_registry_knows_them(self):
        assert FORMER_NAMES == {"ppmd": "ppm-inherit", "ngram": "kneser-ney"} and not set(FORMER_NAMES) & set(MODELS)
        assert model_named("ppmd") is MODELS["ppm-inherit"]
        assert parse_models("ngram,kneser-ney") == ["kneser-ney"]

    def test_in_the_library(self, model, train_text):
        assert type(model.char_model("ngram")) is type(model.char_model("kneser-ney"))
        assert build_model(train_text[:3000], order=2, models=("ppmd",), threads=1).models == ("ppm-inherit",)

    def test_in_a_stored_model(self, model, tmp_path, monkeypatch, english):
        monkeypatch.chdir(tmp_path)
        Path("t.txt").write_text(english[:30_000], encoding="utf-8")
        stored = Model(model.manifest | {"models": ["ngram"]}, model.all_columns)
        assert type(stored.char_model()).__name__ == "KneserNey"
        stored.save("m")
        shown = run("eval", "--model", "m", "--data", "t.txt", "--chars", 100, "--gate", 0, "--json")
        assert json.loads(shown.stdout)["char_model"] == "kneser-ney" and "is now called" not in shown.stderr
        assert json.loads(run("inspect", "m", "--json").stdout)["models"] == ["kneser-ney"]

    def test_on_the_command_line(self, tmp_path, monkeypatch, english):
        monkeypatch.chdir(tmp_path)
        Path("t.txt").write_text(english[:30_000], encoding="utf-8")
        result = run("build", "--data", "t.txt", "--order", 2, "--models", "ngram", "--json")
        assert json.loads(result.stdout)["out"] == "models/t-o2-kneser-ney"
        notes = [line for line in result.stderr.splitlines() if "is now called" in line]
        assert notes == ["the model ngram is now called kneser-ney; the next version will not know the old name"]
        result = run("eval", "--models", "ppmd", "--chars", 100, "--gate", 0, "--json")
        assert [row["model"] for row in json.loads(result.stdout)["models"]] == ["ppm-inherit"]
        assert "the model ppmd is now called ppm-inherit" in result.stderr
        assert "is now called" not in run("eval", "--chars", 100, "--gate", 0, "--json").stderr


def test_the_lists_of_the_commands_are_the_registry_s():
    names = ", ".join(MODELS)
    for command in ("build", "eval"):
        assert names in " ".join(run(command, "--help").output.split()).replace("- ", "-")  # lines break at hyphens
    shown = subprocess.run([sys.executable, ROOT / "bench" / "models.py", "--help"], check=True, capture_output=True, text=True).stdout
    assert names in " ".join(shown.split())


def test_the_list_costs_nothing():
    """What --help shows needs no compiler."""
    code = "import sys, charstat.cli; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def imports(path: Path, modules: set[str]) -> set[str]:
    """The modules of the package that a file imports: at the top, for type checkers, and inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "charstat":
            found |= {full if (full := f"{node.module}.{alias.name}") in modules else node.module for alias in node.names}
    return found - {"charstat"}


def test_no_circle_of_imports_but_for_one_arrow():
    """A Model is data: what reads it imports it, and Model.char_model() asks the registry. No other file reaches itself."""
    files = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in (ROOT / "charstat").rglob("*.py")}
    del files["charstat"]  # the public names, each imported when it is used
    arrows = {name: imports(path, set(files)) - {name} for name, path in files.items()}
    assert "charstat.registry" in arrows["charstat.model"]
    arrows["charstat.model"].remove("charstat.registry")
    while leaves := [name for name, targets in arrows.items() if not targets & set(arrows)]:
        for name in leaves:
            del arrows[name]
    assert not arrows, f"these import each other, or what does: {sorted(arrows)}"
