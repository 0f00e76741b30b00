"""The audit: each known cheat is a small model that must be caught, by its name; honest models must pass."""

import json
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from click.testing import CliRunner

import charstat
from charstat import UserError, audit
from charstat.auditing import report as names
from charstat.cli import cli
from charstat.registry import MODELS

LETTERS = "abcdefgh .\n"
TEXT = "".join(np.random.default_rng(3).choice(list("abab cd. efgh\n"), 60)) + "abc abc abd. abc abc abd. hgf fed " * 5


def ask(source, text=TEXT, probes=40, positions=6, **options):
    return audit(source, text, probes=probes, positions=positions, **options)


class Bigram:
    """Honest: counts of the character after the last one, learned online; +1 for each of the letters."""

    def reset(self):
        self.last, self.counts = "", defaultdict(Counter)

    def p(self, char):
        seen = self.counts[self.last]
        return (seen[char] + 1) / (seen.total() + len(LETTERS)) if char in LETTERS else 0.0

    def learn(self, char):
        self.counts[self.last][char] += 1
        self.last = char

    def charged(self, char):
        return self.p(char)

    def score(self, text):
        bits = []
        for char in text:
            p = self.charged(char)
            bits.append(-math.log2(p) if p > 0 else math.inf)
            self.learn(char)
        return np.array(bits)


class Predicting(Bigram):
    """Honest, and says what could come."""

    def predict(self):
        return {c: self.p(c) for c in LETTERS}

    def observe(self, char):
        self.learn(char)


class Stepping:
    """Honest: predict() and observe() alone."""

    def __init__(self):
        self.inner = Predicting()

    def reset(self):
        self.inner.reset()

    def predict(self):
        return self.inner.predict()

    def observe(self, char):
        self.inner.observe(char)


class Guessing(Stepping):
    """Honest: one character."""

    def predict(self):
        said = self.inner.predict()
        return max(said, key=said.get)


PIECES = [b"ab", b"abc", b"abd", b" abc", b". ", *(c.encode() for c in LETTERS)]


def pieces_of(text):
    """The ids of the longest pieces that fit."""
    ids, at = [], 0
    while at < len(text):
        i = max((i for i, piece in enumerate(PIECES) if text.startswith(piece.decode(), at)), key=lambda i: len(PIECES[i]))
        ids.append(i)
        at += len(PIECES[i])
    return ids


class Tokens:
    """Honest: unigram counts of tokens, learned online."""

    vocab_size, token_bytes = len(PIECES), PIECES

    def encode(self, text):
        return np.array(pieces_of(text), np.uint16)

    def reset(self):
        self.counts = np.ones(len(PIECES))

    def nll(self, ids):
        out = np.empty(len(ids))
        for k, i in enumerate(ids.tolist()):
            out[k] = -math.log(self.charged(i))
            self.counts[i] += 1
        return out

    def charged(self, i):
        return self.counts[i] / self.counts.sum()


class Forking(Predicting):
    def fork(self):
        other = Forking()
        other.last, other.counts = self.last, defaultdict(Counter, {k: Counter(v) for k, v in self.counts.items()})
        return other


# The cheats.


class TwoTables(Bigram):
    """Numerators and denominators from two hash tables with few places: their ratio is no distribution."""

    def reset(self):
        super().reset()
        self.pairs, self.contexts = Counter(), Counter()

    def places(self, char):
        return hash_of(self.last + char, 5), hash_of(self.last, 64)

    def p(self, char):
        pair, context = self.places(char)
        return min((self.pairs[pair] + 0.1) / (self.contexts[context] + 1.0), 0.99)

    def learn(self, char):
        pair, context = self.places(char)
        self.pairs[pair] += 1
        self.contexts[context] += 1
        self.last = char


def hash_of(text, places):
    return sum(ord(c) * 31**i for i, c in enumerate(text)) % places


class TargetInKey(Predicting):
    """Adaptive confidence kept under (last character, target): it knows what is right before it is told."""

    def reset(self):
        super().reset()
        self.confidence = Counter()

    def charged(self, char):
        return min(1.0, self.p(char) * (1 + self.confidence[self.last + char]))

    def learn(self, char):
        self.confidence[self.last + char] += 1
        super().learn(char)


class GateOfTarget(Bigram):
    """Mixes with uniform, and the gate looks at how often the target was seen."""

    def charged(self, char):
        gate = 0.9 if self.counts[self.last][char] > 0 else 0.1
        return gate * self.p(char) + (1 - gate) / len(LETTERS)


class BestExpert(Bigram):
    """The better of two experts for what came."""

    def charged(self, char):
        return max(self.p(char), 1 / len(LETTERS))


class LearnedFirst(Predicting):
    """Each character is learned before it is scored."""

    def charged(self, char):
        seen = self.counts[self.last]
        return (seen[char] + 2) / (seen.total() + 1 + len(LETTERS))


class SpreadTokens(Tokens):
    """A character net by name: each token's probability is spread evenly over its characters."""

    nll = None

    def score(self, text):
        bits = []
        for i in pieces_of(text):
            piece = PIECES[i].decode()
            bits += [-math.log2(self.charged(i)) / len(piece)] * len(piece)
            self.counts[i] += 1
        return np.array(bits)


class TwoPasses(Bigram):
    """The whole text is learned, then scored."""

    def score(self, text):
        super().score(text)
        self.last = ""
        return super().score(text)


class Remembering(Bigram):
    """reset() forgets where it is, but nothing else."""

    def __init__(self):
        super().reset()

    def reset(self):
        self.last = ""


class LearningWhenAsked(Predicting):
    def predict(self):
        said = super().predict()
        for char in said:
            self.counts[self.last][char] += 1
        return said


class CharactersAsBytes(Bigram):
    """Bits per byte, divided by a guess of the bytes."""

    def score(self, text):
        bits = super().score(text)
        self.bits = bits.sum()
        return bits

    def claims(self, text):
        return {"bits": self.bits, "bits_per_byte": self.bits / (1.1 * len(text))}


class TwiceCounted(Tokens):
    """Its pieces say that there are more bytes than the text has."""

    token_bytes = tuple(piece + b"_" for piece in PIECES)


class SkipsLines(Bigram):
    """Line ends are not charged for."""

    def score(self, text):
        bits = super().score(text)
        return bits[[c != "\n" for c in text]]


class BetterReport(CharactersAsBytes):
    def claims(self, text):
        return {"bits": 0.9 * self.bits, "bits_per_char": 0.9 * self.bits / len(text)}


CHEATS = {
    names.RATIO: (TwoTables, "sum"),
    names.TARGET_KEY: (TargetInKey, "sum"),
    names.GATE: (GateOfTarget, "sum"),
    names.BEST_EXPERT: (BestExpert, "sum"),
    names.LEARNED_FIRST: (LearnedFirst, "order"),
    names.SPREAD: (SpreadTokens, "causality"),
    names.TWO_PASSES: (TwoPasses, "causality"),
    names.MEMORY: (Remembering, "one pass"),
    names.DENOMINATOR: (CharactersAsBytes, "denominator"),
    names.RESCORED: (BetterReport, "denominator"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_known_cheats_are_caught_by_name(name):
    cheat, check = CHEATS[name]
    found = ask(cheat)
    assert check in found.caught, found
    assert name in found.check(check).suspects and name in found.suspects
    assert not found.clean


@pytest.mark.parametrize(
    ("cheat", "caught"),
    [
        (TwoTables, {"sum"}),
        (TargetInKey, {"sum", "agreement", "order"}),
        (GateOfTarget, {"sum"}),
        (BestExpert, {"sum"}),
        (LearnedFirst, {"sum", "agreement", "order"}),
        (SpreadTokens, {"causality", "chunks"}),
        (TwoPasses, {"causality", "chunks", "sum"}),
        (Remembering, {"one pass"}),
        (CharactersAsBytes, {"denominator"}),
        (TwiceCounted, {"denominator"}),
        (SkipsLines, {"denominator"}),
        (BetterReport, {"denominator"}),
    ],
)
def test_which_checks_catch_them(cheat, caught):
    found = set(ask(cheat).caught)
    if cheat is SpreadTokens:
        found -= {"sum"}  # above 1 where a piece may end: not everywhere
    assert found >= caught if cheat is Remembering else found == caught  # what remembers changes with every question


def test_asking_must_not_teach():
    found = ask(LearningWhenAsked)
    assert "order" in found.caught and names.LEARNED_FIRST in found.check("order").suspects


@pytest.mark.parametrize("honest", [Bigram, Predicting, Forking, Stepping, Tokens])
def test_honest_models_pass(honest):
    found = ask(honest)
    assert found.clean and not found.suspects, found
    assert all(check.verdict in (names.PASSED, names.UNSEEN) for check in found.checks)
    assert {"causality", "sum", "one pass", "chunks", "denominator"} <= {c.id for c in found.checks if c.verdict == names.PASSED}
    assert found.to_dict()["bits_per_byte"] == pytest.approx(found.bits / len(TEXT.encode()))
    assert ask(honest()).clean  # a model, not what makes one


def test_a_model_that_guesses():
    found = ask(Guessing)
    assert found.clean and found.bits is None and found.check("sum").verdict == names.UNSEEN

    class Peeking(Guessing):
        turn = 0

        def predict(self):
            self.turn += 1
            return TEXT[self.turn % len(TEXT)]

    assert "one pass" in ask(Peeking).caught


def test_cheating_tokens():
    class Best(Tokens):
        def charged(self, i):
            return max(super().charged(i), 1 / self.vocab_size)

    class Leaky(Tokens):
        def charged(self, i):
            return 0.9 * super().charged(i)

    assert ask(Best).caught == ["sum"] and ask(Leaky).caught == ["sum"]


def test_a_fork_that_lies_is_not_believed():
    class Lying(Forking):
        def charged(self, char):
            return max(self.p(char), 1 / len(LETTERS))

        def fork(self):
            return super().fork()  # a Forking, whose charges are fair

        predict = None

    assert "sum" in ask(Lying).caught


def test_claims_that_are_true():
    class Truthful(CharactersAsBytes):
        def claims(self, text):
            n = len(text.encode())
            return {
                "chars": len(text),
                "bytes": n,
                "bits": self.bits,
                "bits_per_byte": self.bits / n,
                "bits_per_char": self.bits / len(text),
            }

    assert ask(Truthful, TEXT.replace("h", "–"), probes=5).check("denominator").verdict == names.PASSED


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_the_registry_passes(model, held_out, name):
    found = audit(lambda: model.char_model(name), held_out[:250], probes=12, positions=4)
    assert found.clean, found
    assert all(check.verdict == names.PASSED for check in found.checks)


def test_a_stream_with_advice_of_the_target_is_caught(model, held_out):
    """An expert that is told what comes: the mixture is honest, what it is handed is not."""

    class Told:
        def reset(self):
            self.stream = model.stream(experts=1)
            self.stream.reset()

        def score(self, text):
            advice = np.zeros((len(text), 1, 128))
            advice[np.arange(len(text)), 0, model.alphabet.encode(text)] = 1.0
            return self.stream.score(text, advice)

    assert "sum" in audit(Told, held_out[:120], probes=3, positions=2).caught


class TestWhatCannotBeAudited:
    @pytest.mark.parametrize(
        ("what", "source"),
        [
            ("give a model with reset", 3),
            ("neither score", type("Empty", (), {"reset": lambda self: None})),
            ("has no reset", type("Endless", (), {"score": lambda self, text: np.zeros(len(text))})),
            (r"factory raised ZeroDivisionError", lambda: 1 / 0),
            (r"score\(\) raised KeyError", type("Failing", (), {"reset": lambda self: None, "score": lambda self, text: {}[text]})),
        ],
    )
    def test_models(self, what, source):
        with pytest.raises(UserError, match=what):
            ask(source)

    @pytest.mark.parametrize("text", ["", "a", None, b"b"])
    def test_texts(self, text):
        with pytest.raises(UserError, match="two characters"):
            ask(Bigram, text)

    @pytest.mark.parametrize("options", [{"probes": 0}, {"positions": 0}, {"tolerance": 1.0}, {"tolerance": math.nan}])
    def test_options(self, options):
        with pytest.raises(UserError, match="must be 1 or more"):
            ask(Bigram, **options)

    def test_a_model_that_exits(self):
        class Exiting(Bigram):
            def score(self, text):
                raise SystemExit(0)

        with pytest.raises(UserError, match=r"score\(\) raised SystemExit"):
            ask(Exiting)

    @pytest.mark.parametrize("said", [3.0, {"bits": "few"}, {"bits": None}])
    def test_claims_that_are_no_figures(self, said):
        class Odd(CharactersAsBytes):
            def claims(self, text):
                return said

        with pytest.raises(UserError, match="must return"):
            ask(Odd, probes=2)

    def test_unknown_claims(self):
        class Vague(CharactersAsBytes):
            def claims(self, text):
                return {"perplexity": 3.0}

        with pytest.raises(UserError, match="'perplexity'"):
            ask(Vague, probes=2)


class TestCommand:
    SUBMISSION = """
import math
from wikitext import CharModel

class Mine(CharModel):
    def __init__(self, text):
        self.letters = sorted(set(text))
    def reset(self):
        self.seen = {c: 1 for c in self.letters}
    def predict(self):
        total = sum(self.seen.values())
        return {c: n / total for c, n in self.seen.items()}
    def observe(self, char):
        self.seen[char] = self.seen.get(char, 0) + 1

class Cheat(Mine):
    def score(self, text):
        bits = []
        for c in text:
            bits.append(-math.log2(max(self.predict().get(c, 0), 1 / 7)))
            self.observe(c)
        return bits

def train(text):
    return Mine(text)

def cheat():
    return Cheat("abcdefgh")
"""

    @pytest.fixture
    def place(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "submission.py").write_text(self.SUBMISSION)
        (tmp_path / "val.txt").write_text(TEXT, encoding="utf-8")
        (tmp_path / "train.txt").write_text(TEXT, encoding="utf-8")
        return tmp_path

    def run(self, *args):
        return CliRunner().invoke(cli, ["audit", *map(str, args), "--text", "val.txt", "--probes", "20", "--positions", "3"])

    def test_a_submission(self, place):
        result = self.run("submission.py", "--train", "train.txt")
        assert result.exit_code == 0, result.output
        assert "CLEAN" in result.output and "C1 causality" in result.output

    def test_a_cheat(self, place):
        result = self.run("submission.py:cheat", "--json", "--chars", "60")
        assert result.exit_code == charstat.AuditFailed.exit_code == 5, result.output
        found = json.loads(result.stdout)
        assert not found["clean"] and "sum" in found["caught"] and names.BEST_EXPERT in found["suspects"] and found["chars"] == 60
        shown = self.run("submission.py:cheat")
        assert shown.exit_code == 5 and "CAUGHT: sum" in shown.output

    def test_a_module(self, place, monkeypatch):
        (place / "mine_here.py").write_text(self.SUBMISSION.replace("from wikitext import CharModel", "CharModel = object"))
        monkeypatch.syspath_prepend(place)
        assert self.run("mine_here:cheat").exit_code == 5

    def test_a_model_directory(self, place, english):
        charstat.build_model(english[:20_000], order=3, contexts="o0,o1,o2,o3", threads=1).save("m")
        result = self.run("m", "--predictor", "ppm", "--chars", "100")
        assert result.exit_code == 0, result.output

    @pytest.mark.parametrize(
        ("what", "args"),
        [
            ("give the text to train on with --train", ["submission.py"]),
            ("defines no nothing", ["submission.py:nothing"]),
            ("no model directory at 'nowhere'", ["nowhere"]),
            ("there is no file 'gone.py'", ["gone.py"]),
            ("importing no_such_module raised ModuleNotFoundError", ["no_such_module:f"]),
            ("leave it out for a submission", ["submission.py", "--predictor", "ppm"]),
            ("at least two are needed", ["submission.py:cheat", "--from", "100000"]),
            ("is no charstat model", ["."]),
        ],
    )
    def test_mistakes(self, place, what, args):
        result = self.run(*args)
        assert result.exit_code == 2, result.output
        assert what in " ".join(result.output.split()) or args == ["."]
        assert "Traceback" not in result.output
