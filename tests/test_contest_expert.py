"""contest/expert.py: a submission whose train() also trains a model of the submitter's own, which advises the mixture."""

import importlib.util
import re
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from test_contest import PRESET, contest_module, missing_names

from charstat import UserError
from charstat.charmodel_api import evaluate
from charstat.cli import cli
from charstat.contest.bundle import EXPERT_PATH, QUOTES, expert_source, submission_source, write_bundle
from charstat.contest.expert import AdvisedEntry
from charstat.contest.presets import PRESETS
from charstat.counting import build_model
from charstat.mixers.combine import AdvisedMixture

NET = '''"""Not a net, but trained like one: which character follows which."""

import numpy as np

from charstat.advice import Advice


class Pairs:
    def __init__(self, text):
        self.vocab = sorted(set(text))
        self.index = {c: i for i, c in enumerate(self.vocab)}
        self.counts = np.full((len(self.vocab), len(self.vocab)), 0.1)
        for a, b in zip(text, text[1:]):
            self.counts[self.index[a], self.index[b]] += 1

    def reset(self):
        self.last = "e"

    def observe(self, char):
        self.last = char if char in self.index else "e"

    def probabilities(self):
        row = self.counts[self.index[self.last]]
        return Advice(self.vocab, row / row.sum())


def train(train_text):
    return Pairs(train_text)
'''


@pytest.fixture
def net(tmp_path, monkeypatch):
    """The expert's file, and the module that a submission makes of it."""
    path = tmp_path / "net.py"
    path.write_text(NET)
    spec = importlib.util.spec_from_file_location("charstat.submitted_expert", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "charstat.submitted_expert", module)
    return path


@pytest.mark.parametrize("contract", ["main", "dev"])
def test_the_model_is_the_mixture_advised_by_the_expert(contract, net, train_text, held_out):
    base = contest_module(contract).CharModel
    model = AdvisedEntry(PRESET.to_dict(), "cpu", base, lambda line: None).train(train_text)
    assert isinstance(model, base)
    mixture = build_model(train_text[: PRESET.chars], order=PRESET.order, contexts=PRESET.contexts, backend="cpu").stream(experts=1)
    expert = sys.modules["charstat.submitted_expert"].train(train_text)  # all of the text, not what is counted
    advised = AdvisedMixture(mixture, [expert])
    text = held_out[:400]
    assert evaluate(model, text).accuracy == evaluate(advised, text).accuracy
    assert model.predict() == (advised.predict() if contract == "main" else advised.predict_char())
    weights = mixture.state.mixer.weights
    assert weights[:, mixture.layout.columns.experts].any() and np.isfinite(weights).all()  # it was listened to


def test_the_bundle_carries_it_as_it_stands(net, tmp_path):
    bundle = write_bundle(tmp_path / "out", author="@x", expert=net)
    source = bundle.path.read_text()
    assert f"# ---- {EXPERT_PATH} ----\nFILES[{EXPERT_PATH!r}] = r'''\n{NET}'''[1:]" in source
    assert "from charstat.contest.expert import AdvisedEntry as Entry" in source
    assert len(re.findall(r"def _warm_up\(self\)", source)) == 2  # the entry's, too
    page = (tmp_path / "out" / "README.md").read_text()
    assert "net.py" in page and "--expert net.py" in page and "No neural network" not in page and "with this expert" in page
    plain = submission_source(PRESETS["gate"], "cpu", "@x")[1]
    assert EXPERT_PATH not in plain and "charstat/contest/expert.py" not in plain


def test_no_name_is_missing_in_what_the_expert_brings(net):
    files = submission_source(PRESETS["gate"], "cpu", "@x", expert_source(net))[1]
    assert missing_names(files) == {}
    assert "def align(" in files["charstat/alphabet.py"]  # by way of Advice.aligned


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("x = 1\n", "no function train"),
        ("def train(): pass\n", "no function train"),
        ("def train(text:\n", "not Python"),
        ("\0", "not Python"),
        (f"def train(text): return {QUOTES}x{QUOTES}\n", "docstrings"),
    ],
)
def test_files_that_are_no_expert(source, why, tmp_path):
    path = tmp_path / "net.py"
    path.write_text(source)
    with pytest.raises(UserError, match=why):
        write_bundle(tmp_path / "out", author="@x", expert=path)
    result = CliRunner().invoke(cli, ["bundle", "--out", str(tmp_path / "out"), "--author", "@x", "--expert", str(path)])
    assert result.exit_code == 2 and re.search(why, result.output) and not (tmp_path / "out").exists()
