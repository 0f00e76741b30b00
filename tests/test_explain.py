"""`charstat explain` and `eval --report`: the numbers are score()'s, contributions add up, pages work in a browser, mistakes are told."""

import io
import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import PHONE, browser
from click.testing import CliRunner
from conftest import RARE
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from charstat import CorpusError, StateError
from charstat.cli import cli
from charstat.explaining import charts, samples
from charstat.explaining.calibration import calibrate
from charstat.explaining.collect import explain_sample
from charstat.explaining.kinds import KINDS, kinds_of
from charstat.explaining.page import EDGES, explain_page, level
from charstat.explaining.samples import LEAD_BYTES, take
from charstat.explaining.show import digits, show_explanation

TEXT = "The statement is executed 42 times—in 戦 order.\n\nX<b>"


def run(*args, status=0, stdin=None):
    result = CliRunner().invoke(cli, [str(a) for a in args], input=stdin)
    assert result.exit_code == status, result.output + str(result.exception)
    assert "Traceback" not in result.output
    return result


def explained(stream, text):
    return explain_sample(stream, take(text, 10**6, as_text=True))


@pytest.fixture(scope="module")
def model_dir(model, tmp_path_factory) -> str:
    return str(model.save(tmp_path_factory.mktemp("models") / "mine").path)


@pytest.fixture(scope="module")
def result(model):
    return {"model": "m", "predictor": "mix", "source": SOURCE, "notes": [], "out": None} | explained(model.stream(), TEXT)


SOURCE = {"name": "a <text>", "about": "all of it", "bytes": 9, "whole": True, "windows": [{"at": 0, "chars": len(TEXT), "lead_chars": 0}]}


# the numbers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mix", "advised", "match", "ppm"])
def test_the_bits_are_those_of_score(model, held_out, name):
    stream = model.char_model(name)
    text = held_out[:300] + RARE[:2]
    rows = explained(stream, text)["characters"]
    stream.reset()
    assert [row["bits"] for row in rows] == stream.score(text).tolist()
    stream.reset()
    assert [row["guess"] for row in rows] == stream.guess_and_score(text)[0]
    for row in rows:
        listed = [p for _, p in row["top"]]
        assert len(listed) == 5 and listed == sorted(listed, reverse=True) and row["top"][0][0] == row["guess"]
        assert dict(row["top"]).get(row["char"], row["probability"]) == pytest.approx(row["probability"], rel=1e-12)


def assert_adds_up(explanation):
    for d, decision in enumerate(explanation.decisions):
        p = decision.probability
        assert math.log(p / (1 - p)) == pytest.approx(decision.mixer + decision.last_stage + decision.even, abs=1e-9)
        assert explanation.contributions[d].sum() == pytest.approx(decision.mixer, abs=1e-9)
    bits = -sum(math.log2(d.probability) for d in explanation.decisions) - math.log2(explanation.rare_probability)
    assert bits == pytest.approx(explanation.bits, abs=1e-9)


@settings(max_examples=10)
@given(st.text(st.one_of(st.sampled_from("the \n" + RARE), st.characters(codec="utf-8")), min_size=1, max_size=30))
def test_contributions_add_up_to_the_logit(model, text):
    stream = model.stream()
    stream.reset()
    stream.score("The statement is ")
    for char in text:
        explanation = stream.explain(char)
        assert_adds_up(explanation)
        assert explanation.probability == stream.probability(char)
        stream.observe(char)


def test_contributions_add_up_with_advice(model, held_out):
    stream = model.char_model("advised")
    stream.reset()
    for char in held_out[:40]:
        explanation = stream.explain(char)
        assert_adds_up(explanation)
        stream.observe(char)
    assert [s.name for s in explanation.sources[-2:]] == ["InheritingPPM", "ContextTreeWeighting"]
    assert np.abs(explanation.contributions[:, -2:]).max() > 0.01


def test_the_totals_are_the_sums_of_the_characters(result):
    rows = result["characters"]
    for source, total in enumerate(result["sources"][:-2]):
        of_it = [s["contribution"] for row in rows for s in row["sources"] if s["source"] == source]
        assert total["contribution"] * len(rows) == pytest.approx(sum(of_it), abs=1e-9)
        assert total["spoke"] * len(rows) == pytest.approx(len(of_it))
    assert result["sources"][-2]["contribution"] * len(rows) == pytest.approx(sum(row["last_stage"] for row in rows))
    assert sum(kind["chars"] for kind in result["kinds"]) == len(TEXT)
    assert sum(kind["bits"] for kind in result["kinds"]) == pytest.approx(result["bits"])


def test_counts_are_those_of_the_text(model, english):
    stream = model.stream()
    stream.reset()
    stream.score("The statem")
    explanation = stream.explain("e")
    names = {(s.group, s.name): i for i, s in enumerate(explanation.sources)}
    k = names["static", "o2"]
    counted = english[:80_000]
    seen, followed = (sum(counted.startswith(part, i) for i in range(len(counted))) for part in ("em", "eme"))
    assert (explanation.seen[k], explanation.followed[k]) == (seen, followed) and followed > 0
    assert explanation.static_order == 8 and explanation.word_place == 6
    assert explanation.seen[names["online", "o1"]] == pytest.approx(0)  # no "m" before


def test_explaining_leaves_the_stream_where_it_is(model, held_out):
    text = held_out[:200]
    plain, asked = model.stream(), model.stream()
    for stream in (plain, asked):
        stream.reset()
    for char in text:
        for other in ("e", "戦", char):
            asked.explain(other)
        asked.observe(char)
        plain.observe(char)
    assert asked.score(text).tolist() == plain.score(text).tolist()
    view = asked.freeze()
    assert view.explain("e").bits == asked.explain("e").bits


def test_what_explain_does_not_take(model):
    with pytest.raises(ValueError, match="one character"):
        model.stream().explain("ab")
    with pytest.raises(StateError, match="reset"):
        model.stream().explain("a")


# kinds, samples ----------------------------------------------------------------------------------------------------------


def test_kinds():
    assert [KINDS[k] for k in kinds_of("On 4 it's\n(É)ne\u0301")] == [
        "capitals", "inside words", "spaces", "digits", "spaces", "first letters", "inside words", "punctuation", "first letters",
        "line breaks", "punctuation", "capitals", "punctuation", "first letters", "inside words", "others",
    ]  # fmt: skip
    assert kinds_of("a", "b") != kinds_of("a", " ")


@pytest.mark.parametrize(("chars", "windows"), [(10, 1), (1000, 1), (700, 7), (5, 5), (3000, 4), (3001, 2)])
def test_samples(tmp_path, chars, windows):
    text = "".join(chr(0x61 + i % 26) if i % 3 else chr(0x4E00 + i) for i in range(3000))
    path = tmp_path / "t.txt"
    path.write_text(text, encoding="utf-8")
    sample = take(str(path), chars, windows)
    assert sample.whole == (chars >= 3000) and sample.n_bytes == path.stat().st_size
    assert sample.chars == min(3000, chars if windows == 1 else chars // windows * windows)
    ends = 0
    for window in sample.windows:
        before = path.read_bytes()[: window.at].decode()
        assert text[len(before) :].startswith(window.text) and before.endswith(window.lead) and len(before) >= ends
        ends = len(before) + len(window.text)
    assert len(sample.windows) == (1 if sample.whole else windows)


def test_a_long_file_is_hardly_read(tmp_path, monkeypatch):
    path = tmp_path / "long.txt"
    with open(path, "wb") as f:
        f.truncate(10**12)  # a hole: nothing of it takes room
        for at in (0, 5 * 10**11):
            f.seek(at)
            f.write(b"The statement. " * 10_000)
        f.seek(5 * 10**11 - LEAD_BYTES)
        f.write(b"x" * LEAD_BYTES)
    sample = take(str(path), 100, 2)
    assert sample.chars == 100 and sample.windows[1].lead == "x" * LEAD_BYTES and not sample.whole
    assert sample.about() == "100 characters of 1,000,000,000,000 bytes, in 2 evenly spaced windows"


def test_windows_start_anew_with_what_was_read_before_them(model, held_out, tmp_path):
    (tmp_path / "t").write_text(held_out, encoding="utf-8")
    sample = take(str(tmp_path / "t"), 100, 2)
    rows = explain_sample(model.stream(), sample)["characters"]
    stream = model.stream()
    stream.reset()
    first = stream.score(sample.windows[0].text)
    stream.reset(keep_learning=True)
    stream.score(sample.windows[1].lead)
    assert [row["bits"] for row in rows] == [*first, *stream.score(sample.windows[1].text)]
    assert {row["window"] for row in rows} == {0, 1}


# the command -------------------------------------------------------------------------------------------------------------


def test_json(model_dir, tmp_path):
    found = json.loads(run("explain", TEXT, "--model", model_dir, "--json").stdout)
    assert "".join(row["char"] for row in found["characters"]) == TEXT and found["source"]["whole"] and not found["notes"]
    assert {"top", "bits", "order", "match", "decisions", "sources"} <= set(found["characters"][5])
    sampled = json.loads(run("explain", TEXT, "--model", model_dir, "--chars", 7, "--json").stdout)
    assert sampled["chars"] == 7 and sampled["notes"][0].startswith("A sample: only the first 7 characters of ")
    plain = json.loads(run("explain", TEXT, "--model", model_dir, "--predictor", "kneser-ney", "--json").stdout)
    assert plain["sources"] == [] and "sources" not in plain["characters"][0] and len(plain["characters"][0]["top"]) == 5


def test_in_a_terminal_without_colours(model_dir):
    out = run("explain", "The statement", "--model", model_dir).stdout
    assert re.search(r"^The statement\n[0-9+]{13}\n", out, re.MULTILINE) and "\x1b" not in out
    for part in ("By kind of character", "What cost most", "What the sources said"):
        assert part in out
    assert run("explain", "-", "--model", model_dir, stdin="The statement").stdout.count("The statement") >= 1


@pytest.mark.parametrize(("no_color", "variable", "coloured"), [(False, None, True), (True, None, False), (False, "1", False)])
def test_colours_in_a_terminal(result, monkeypatch, no_color, variable, coloured):
    out = io.StringIO()
    monkeypatch.delenv("NO_COLOR", raising=False)
    if variable:
        monkeypatch.setenv("NO_COLOR", variable)
    new = lambda no_color: Console(file=out, force_terminal=True, color_system="truecolor", width=100, no_color=no_color or None)
    monkeypatch.setattr("charstat.explaining.show.new_console", new)
    show_explanation(result, False, no_color)
    assert bool(re.search(r"\x1b\[[0-9;]*48;2;", out.getvalue())) == coloured
    assert ("under each character" in out.getvalue()) != coloured


def test_digits_stand_under_their_characters(result):
    lines = str(digits(result, 30)).split("\n")
    assert lines[0] == TEXT[:30] and len(lines[1]) == 30
    bits = [row["bits"] for row in result["characters"]]
    assert [("+" if b >= 9.5 else str(round(b))) for b in bits[:30]] == list(lines[1])
    wide = next(i for i in range(0, len(lines), 2) if "戦" in lines[i])
    assert len(lines[wide + 1]) == len(lines[wide]) + 1  # it is two columns wide


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["no/such.txt"], "there is no file 'no/such.txt': to explain these very characters, add --text"),
        (["missing.txt"], "there is no file 'missing.txt'"),
        (["."], "cannot read '.'"),
        ([""], "the text is empty"),
        (["empty"], "empty is empty: there is nothing to explain"),
        (["latin-1"], "latin-1 is not UTF-8 (invalid start byte at byte 2): explain reads text"),
        (["binary"], "binary has NUL characters and looks like a binary file"),
        (["far", "--windows", "2", "--chars", "100"], "far is not UTF-8"),
        (["text", "--model", "nowhere"], "no model at nowhere"),
        (["text"], "there is no model in models/"),
        (["text", "--chars", "0"], "0 is not in the range"),
        (["text", "--windows", "9", "--chars", "3"], "9 windows need 9 characters"),
        (["-", "--windows", "2"], "stdin cannot be sampled"),
        (["text", "--predictor", "lstm", "--model", "MODEL"], "there is no model 'lstm'"),
        (["text", "--model", "MODEL", "--out", "there.html"], "there.html exists: --force overwrites it"),
        (["text", "--model", "MODEL", "--out", "-"], "a page goes to a file"),
        (["text", "--model", "MODEL", "--out", "no/such/page.html"], "cannot write no/such/page.html: there is no directory"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, model_dir, args, why):
    monkeypatch.chdir(tmp_path)
    files = {"text": b"some text", "empty": b"", "latin-1": b"Gr\xf6\xdfe", "binary": b"\x7fELF\0\0", "there.html": b"precious"}
    files["far"] = b"a" * 900 + b"\xff" * 900
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    error = run("explain", *(model_dir if a == "MODEL" else a for a in args), status=2, stdin="x").stderr
    assert why in " ".join(error.split())
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == files


def test_a_directory_with_a_dot_is_no_text():
    with pytest.raises(CorpusError):
        samples.take(str(Path(__file__).parent), 5)


# pages -------------------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else(result):
    page = explain_page(result)
    assert not re.search(r"""(src|href)=["'](?!data:)|@import|url\(|https?://(?!www\.w3\.org)""", page)
    assert "<b>" not in page and "a &lt;text&gt;" in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert "".join(c[0] for c in data["chars"]) == TEXT
    assert [level(b) for b in (0, EDGES[0], 99)] == [0, 1, 9]


def test_a_page_of_another_model(model, model_dir, tmp_path):
    page = tmp_path / "p.html"
    out = run("explain", TEXT, "--model", model_dir, "--predictor", "ppm", "--out", page).stdout
    assert "Only the mixture has sources" in page.read_text(encoding="utf-8") and "p.html" in out.replace("\n", "")
    run("explain", TEXT, "--model", model_dir, "--out", page, "--force")
    assert "By source" in page.read_text(encoding="utf-8")


def test_calibration(model, held_out):
    stream = model.stream()
    found = calibrate(stream, held_out)
    assert sum(b["n"] for b in found["bins"]) == len(held_out) * (model.alphabet.size + 1)
    assert sum(b["said"] * b["n"] for b in found["bins"]) == pytest.approx(len(held_out), rel=1e-6)
    assert sum(b["came"] * b["n"] for b in found["bins"]) == pytest.approx(len(held_out))
    assert 0 < found["gap"] < 0.3
    assert calibrate(model.char_model("advised"), held_out[:200])["gap"] < 0.6
    static = model.char_model("kneser-ney")
    bins = calibrate(static, held_out)["bins"]
    static.reset()
    p = static.distributions(held_out)
    odds = p / (1.0 - p)
    sure = odds > math.exp(0.5)  # an edge of the bins
    above = [b for b in bins if b["said"] > 1.0 / (1.0 + math.exp(-0.5))]
    assert sum(b["n"] for b in above) == sure.sum()
    right = p[np.arange(len(held_out)), model.alphabet.encode(held_out)]
    assert sum(b["came"] * b["n"] for b in above) == pytest.approx((right > 1.0 / (1.0 + math.exp(-0.5))).sum())


def test_eval_writes_a_report(model_dir, english, tmp_path):
    text, page = tmp_path / "t.txt", tmp_path / "r.html"
    text.write_text(english[80_000:120_000], encoding="utf-8")
    args = ["eval", "--model", model_dir, "--data", text, "--chars", 1500, "--gate", 0, "--report", page]
    found = json.loads(run(*args, "--json").stdout)
    one = page.read_text(encoding="utf-8")
    assert f"{found['accuracy']:.4f}" in one and f"{found['bits_per_char']:.4f}" in one and one.count("<svg") == 2
    assert "exists: --force" in run(*args, status=2).stderr
    run(*args, "--models", "mix,ppm", "--force")
    both = page.read_text(encoding="utf-8")
    for part in ("<td>ppm</td>", "Probability against frequency", "inside words", "Accuracy of the text so far"):
        assert part in both


def test_a_chart():
    points = [(10, 0.1), (100, 0.5), (1000, 0.9)]
    picture = charts.chart(
        "a < b", charts.Axis("x", 10, 1000, "log"), charts.Axis("y", 0, 1),
        [charts.Series("one", points, marker="ring", labels=["low", "middle", "high"])], standalone=True,
    )  # fmt: skip
    root = ElementTree.fromstring(picture)
    texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"low", "middle", "high", "10", "100", "1000", "one", "x", "y", "a < b"} <= set(texts)
    places = [float(e.get("cx")) for e in root.iter("{http://www.w3.org/2000/svg}circle")][:3]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)
    assert charts.nice_ticks(0.61, 0.77) == pytest.approx([0.65, 0.7, 0.75])


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_the_page_in_a_browser(chromium, result, tmp_path, width, dark):
    page = tmp_path / "page.html"
    page.write_text(explain_page(result), encoding="utf-8")
    chromium.look(page, width, dark=dark)
    assert chromium.run("document.querySelectorAll('.text i').length") == len(TEXT)
    assert (chromium.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") != dark
    at = 4
    if width >= PHONE:
        chromium.hover(".text i", at)
    else:
        chromium.run(f"document.querySelectorAll('.text i')[{at}].click()")
    panel = chromium.run("document.getElementById('panel').innerText")
    row = result["characters"][at]
    assert f"{row['bits']:.3f} bits" in panel and f"character {at + 1}" in panel
    assert "What each source said" in panel and "Decisions in the code tree" in panel
    total = sum(s["contribution"] for s in row["sources"]) + row["last_stage"] + row["shared_evenly"]
    assert f"{total:+.2f}".replace("-", "−") in panel
    chromium.run("[...document.querySelectorAll('#panel button')].at(-1).click()")  # all sources
    assert chromium.run("document.querySelectorAll('#panel td.source').length") >= len(row["sources"])
    assert chromium.run("document.documentElement.scrollWidth") <= width
    assert chromium.messages == [] and chromium.schemes <= {"file", "data"}


def test_pinning_and_keys(chromium, result, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(explain_page(result), encoding="utf-8")
    chromium.look(page)

    def shown() -> str:
        return chromium.run("document.querySelector('#panel .head')?.innerText ?? ''")

    chromium.run("document.querySelectorAll('.text i')[7].click()")
    chromium.hover(".text i", 2)
    assert "character 8" in shown()  # it is pinned
    chromium.run("document.querySelectorAll('.text i')[7].click()")
    chromium.hover(".text i", 3)
    assert "character 4" in shown()
    chromium.run("document.querySelector('.text').focus()")
    chromium.press("ArrowRight")
    assert "character 5" in shown()
    chromium.press("Escape")
    assert shown() == "" and chromium.run("document.querySelector('.text i.on')") is None
    assert chromium.messages == []


def test_the_report_in_a_browser(chromium, model_dir, english, tmp_path):
    text, page = tmp_path / "t.txt", tmp_path / "r.html"
    text.write_text(english[80_000:120_000], encoding="utf-8")
    run("eval", "--model", model_dir, "--data", text, "--chars", 800, "--gate", 0, "--models", "mix,ppm", "--report", page)
    for width in (1280, 390):
        chromium.look(page, width)
        assert chromium.run("document.querySelectorAll('svg.chart').length") == 2
        assert chromium.run("document.documentElement.scrollWidth") <= width
    assert chromium.messages == [] and chromium.schemes <= {"file", "data"}


def test_what_the_browser_tests_would_see(chromium, tmp_path):
    """Errors and requests: what they look for is found where it is."""
    (tmp_path / "p.html").write_text("<script>missing()</script><img src='http://127.0.0.1:9/x.png'>", encoding="utf-8")
    chromium.look(tmp_path / "p.html")
    assert any("missing is not defined" in m for m in chromium.messages) and "http" in chromium.schemes
    chromium.messages.clear()
    chromium.schemes.clear()
