"""The README.md beside a submission, as the contest's other submissions have one: what it is, what it costs, how it was measured.

Its figures are those of measured.json, which bench/contest/record.py writes from runs of the very submission.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charstat import __version__
from charstat.contest.presets import Preset

MEASURED = Path(__file__).with_name("measured.json")

PAGE = """\
# charstat_{name}

<!-- made by `charstat bundle` -->

**Paradigm:** {paradigm}

**Hypothesis:** {hypothesis}

**Method:**

1. `train()` takes the first {chars} of the training text{gpu} and counts, for {n_contexts} contexts, what came next. {held_out}
2. The contexts are the last 0 to {order} characters, and the letters of the current word so far together with words before it ({preset} of `charstat`).
3. Counts lie in sorted tables. Word n-grams are counted once per word, and read through the range of the sorted vocabulary that begins with the letters so far.
4. A character is predicted as some five binary decisions down a fixed Huffman-like tree of 128 symbols.
5. At each decision every context has two votes: its static counts, and counts of what the text being read has shown (which fade).
6. A vote is a log-odds, learned for each context, count and ratio; three chains of all contexts from short to long give three more.
7. A logistic mixer, as in the PAQ family, adds the votes with weights chosen by the node, the longest known context and others.
8. A match model votes for what followed the longest earlier repetition.
9. Weights, log-odds and fading counts are learned in `observe()`, after the prediction was committed.
10. `predict()` gives the distribution (main) or its most likely character (dev), by the annotation of the runner's `CharModel.predict`.
{expert}
**What is metered, and what is not.** Metered is `train()`: taking the characters, counting them{learned}. Not metered, by the contest's rules:
the import (installing numba {numba} if it is missing, compiling, a warm-up on a made text), and the evaluation, in which the mixer learns: each
character is learned from after it was predicted, never before. `valid_text` is not asked for.

**Expected:**

{expected}

**Provenance of every tuned constant.** What is counted (contexts, order, number of characters): by `bench/gate_sweep.py` on windows of val
that start at 120,000 and later; the sweep is in `bench/contest/` of the release. The mixer's rates and initial weights, the fading of counts, the
thresholds of contexts and the evidence's bins: by hand, on a stand-in text for WikiText-103's train and on val from 120,000 on. val's first 60,000 characters,
which are scored, were not tuned on; they were looked at now and then while the mixer took
shape, and to report a figure. Constants are a few dozen numbers in the sources; no weight is shipped.

**How to read it:** `submission.py` holds the sources as text, one heading a file: {files} files, {kilobytes} kB, what `charstat {version}` has
under these paths, without the definitions that nothing here uses. SHA-256 of the sources: `{sha256}`.

**How to reproduce:**

```sh
pip install charstat=={version}
charstat bundle --out charstat_{name} --preset {name}{backend} --author {author}      # this submission, byte for byte
charstat contest charstat_{name}/submission.py --data DIR --contract main              # or dev: the contest's rules, from outside
python run_eval.py --data-dir DIR --submission charstat_{name}/submission.py --max-train-seconds 300 --acc-min 0.70   # the contest's own
```

**How to submit:** put this directory inside a clone of the contest, as `submissions/charstat_{name}`, and run `python submit.py submissions/charstat_{name}`
from the clone's root: outside of the clone, submit.py fails when it writes the row, after the run was paid for. The row to expect, on `dev`:

| Date | Energy (J) | Val char-acc | GPU | Config | Submission | Contributor |
|------|-----------:|-------------:|-----|--------|------------|-------------|
| | {row_j} | {row_acc} | A100 80GB | charstat_{name} | [dir](submissions/charstat_{name}) | {author} |

MIT licence, the charstat authors. Nothing in it was copied from other submissions.
"""

EXPERT = """\
11. An expert, `{name}` (carried as `charstat/submitted_expert.py`), is trained in `train()` on the whole training text, and metered. Before each character
    its probabilities are one more vote of the mixer, which learns how far to trust it.
"""

COUNTING = "counting, and online mixing of what was counted. No neural network, no gradient descent in training, no pre-trained anything."
ADVISED = "counting, and online mixing of what was counted with what an expert says, `{name}`, which `train()` trains."

HYPOTHESES = {
    "gate": "a few million characters, counted once, pass the gate of 0.70 if the learning is left to the reading: seconds of one processor instead "
    "of minutes of a GPU.",
    "full": "counts of the whole text, mixed online, come close to the nets of the table for a fraction of their energy.",
}


@dataclass(frozen=True)
class Bundle:
    """A written submission. sha256: of the embedded sources; files: how many; bytes: of submission.py; expert: the name of its file."""

    path: Path
    preset: Preset
    backend: str
    author: str
    sha256: str
    files: int
    bytes: int
    expert: str | None = None


def statement(bundle: Bundle) -> str:
    """The page."""
    from charstat.contest.environment import NUMBA
    from charstat.ngram.contexts import select_contexts

    preset, measured = bundle.preset, None if bundle.expert else load_measured().get(bundle.preset.name)
    held_out = f"The last {preset.held_out_chars:,} of them are not counted: the mixer learns from them what it begins with."
    gpu = f" ({preset.gpu_chars:,} where a GPU counts)" if bundle.backend != "cpu" and preset.gpu_chars != preset.chars else ""
    return PAGE.format(
        name=preset.name, hypothesis=HYPOTHESES.get(preset.name, HYPOTHESES["gate"]), chars=f"{preset.chars:,} characters", gpu=gpu,
        n_contexts=len(select_contexts(preset.contexts, preset.order)), held_out=held_out if preset.held_out_chars else "", order=preset.order,
        preset=f"`--contexts {preset.contexts} --order {preset.order}`", numba=NUMBA[0].rpartition("=")[2],
        learned=", and learning the mixer's start from the characters held out" if preset.held_out_chars else "",
        expected=_expected(measured, bundle), files=bundle.files, kilobytes=round(bundle.bytes / 1000), version=__version__, sha256=bundle.sha256,
        paradigm=ADVISED.format(name=bundle.expert) if bundle.expert else COUNTING, expert=EXPERT.format(name=bundle.expert) if bundle.expert else "",
        backend=("" if bundle.backend == "cpu" else f" --backend {bundle.backend}") + (f" --expert {bundle.expert}" if bundle.expert else ""), author=bundle.author, **_row(measured),
    )  # fmt: skip


def load_measured() -> dict[str, Any]:
    """{preset: what was measured}: see bench/contest/record.py."""
    try:
        return json.loads(MEASURED.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _row(measured: dict[str, Any] | None) -> dict[str, str]:
    if measured is None:
        return {"row_j": "?", "row_acc": "?"}
    return {"row_j": f"{measured['floor_dev_J']:,.0f} or more", "row_acc": f"{measured['accuracy']:.3f} or so"}


def _expected(m: dict[str, Any] | None, bundle: Bundle) -> str:
    if m is None:
        return f"Nothing has been measured of this preset{' with this expert' if bundle.expert else ''}."
    changed = "" if m["sources_sha256"] == bundle.sha256 else " The sources have changed since: measure again (`bench/contest/record.py`)."
    lines = [
        (
            f"- Accuracy **{m['accuracy']:.4f}** on val's first {m['val_chars']:,} characters, after counting {m['counted']} of {m['text']}. "
            f"WikiText-103's own train was not at hand: expect a different third digit. {m['windows']}"
        ),
        f"- `train()`: **{m['seconds']:.2f} s**, {m['cpu_s']:.2f} s of CPU time, on {m['machine']}.{changed}",
        (
            "- Energy: no joules were measured, because there was no counter. The least that the rules can charge for these seconds: "
            f"{m['floor_dev_J']:,.0f} J on dev (50 W · seconds, the floor of its total); on main what the GPU draws beyond 50 W, some 0 to 16 W for one that idles."
        ),
    ]
    if m["no_op_s"]:
        start_s = m["no_op_s"]
        lines.append(
            f"- On dev, CodeCarbon starts and stops inside the window of the GPU's counter: {start_s:.1f} s here for a train() that does nothing, "
            f"at 60 W of an idle GPU some {60 * start_s:.0f} J on top for any submission. For the CPU it charged {m['cpu_dev_J']:,.0f} J "
            f"({m['cpu_counted_by']})."
        )
    return "\n".join([*lines, "- None of this has run on the contest's machine, or on any GPU."])
