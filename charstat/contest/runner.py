"""Drives a submission by the contest's rules, in a child process, and meters it from outside.

    import     unmetered by the contest, measured and shown here      the submission's file is executed: installs, compiles
    train      METERED, and stopped at the time limit                 train(train_text)
    evaluate   unmetered by the contest, measured and shown here      reset(), then predict, score, observe for each character

The meter and the text that is scored are in this process; the submission is in another (child.py), which commits a guess before it is
sent the character. The metered window starts before train() is asked for, and ends when the child has waited for its device, has answered, and
has answered once more, what train() returned: some 100 microseconds more than the call takes. Every step has a limit, kept by this process
(channel.py). What this prevents and what it cannot is in docs/contest.md.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from charstat import __version__
from charstat.contest.carbon import DevFigures, DevWindow, codecarbon_tracker
from charstat.contest.channel import Submission, broken
from charstat.energy import EnergyMeter, EnergyReport
from charstat.errors import CorpusError, ResourceError

ACC_MIN, MAX_TRAIN_S = 0.70, 300.0
CONTRACTS = ("main", "dev")
QUALIFIED, DISQUALIFIED = 0, 2  # exit statuses; 1 is BrokenSubmission's
TOO_SLOW, TOO_INACCURATE = "train_time_exceeded", "val_accuracy_below_floor"
TELL_CHARS = 500
IMPORT_LIMIT_S, TEXT_LIMIT_S = 1800.0, 600.0  # of what the contest leaves open: importing; handing over the text
STEP_LIMIT_S = 60.0  # of one reset() or predict()
EVALUATE_LIMIT_S = 3000.0  # of all of them: the contest's machine is given back after 50 minutes
SLOW_START_S = 1.0  # between train() and the first guess: more is worth a note


def run_contest(
    submission: str | os.PathLike,
    train_text: str,
    val_text: str,
    *,
    contract: str = "main",
    max_train_s: float = MAX_TRAIN_S,
    acc_min: float = ACC_MIN,
    import_limit_s: float = IMPORT_LIMIT_S,
    step_limit_s: float = STEP_LIMIT_S,
    evaluate_limit_s: float = EVALUATE_LIMIT_S,
    meter: Callable[[], EnergyMeter] = EnergyMeter,
    progress: Callable[[str, int], None] | None = None,
) -> dict[str, Any]:
    """Run a submission on texts in the contest's layout; the result's fields (those of the contest's rules, and more), JSON values only.

    meter: makes the meter of each window. progress: told the step ("import", "train", "evaluate") and the characters done.
    BrokenSubmission, with the reason, if it does not keep the contract; CorpusError if there is nothing to score.
    """
    path = Path(submission)
    try:
        source = path.read_bytes()
    except OSError as e:
        raise ResourceError(f"cannot read the submission {str(path)!r}: {e.strerror or e}") from e
    if not val_text:
        raise CorpusError("there is no text to score: the val split is empty")
    tell = progress or (lambda step, done: None)
    with Submission(path, contract) as child:
        tell("import", 0)
        with meter() as imported:
            about = _ask(child, b"I", b"", "its import", import_limit_s)
        _ask(child, b"T", train_text.encode("utf-8", "surrogatepass"), "the training text", TEXT_LIMIT_S)
        tell("train", 0)
        tracker, counts_by = codecarbon_tracker() if contract == "dev" else (None, "")
        nothing = _no_op(meter, tracker) if tracker is not None else None
        in_time, trained, cpu_before = True, DevWindow(meter(), tracker), child.cpu_s()
        with trained:
            try:
                child.ask(b"R", what="train()", limit_s=max_train_s)
                child.ask(b"M", what="train()", limit_s=max_train_s)
            except TimeoutError:
                in_time = False
        report, figures, cpu_after = trained.report, trained.figures(), child.cpu_s()
        in_time = in_time and figures.seconds <= max_train_s
        accuracy, evaluated, first_guess_s = None, None, 0.0
        if in_time:
            evaluated = meter()
            with evaluated:
                accuracy, first_guess_s = _evaluate(child, val_text, tell, step_limit_s, evaluate_limit_s)
    reason = TOO_SLOW if not in_time else TOO_INACCURATE if accuracy < acc_min else None
    result = {"submission": path.stem, "author": about.get("author"), "contract": contract, **_energy(report, figures, contract)}
    result |= {"val_char_accuracy": accuracy, "val_chars": len(val_text), "gpu_name": report.gpu_name}
    result |= {"date_utc": datetime.now(UTC).isoformat(timespec="seconds"), "disqualified": reason is not None, "reason": reason}
    if contract == "dev":
        result |= {"cpu_counted_by": counts_by, "no_op": None if nothing is None else nothing.to_dict()}
    if reason is not None:
        result |= {"max_train_seconds": max_train_s} if reason == TOO_SLOW else {"acc_min": acc_min}
    notes = []
    if about.get("wants_valid_text"):
        notes.append("train() asks for valid_text, which it is not given: training on it is against the rules")
    if first_guess_s > SLOW_START_S:
        notes.append(f"reset() and the first predict() took {first_guess_s:.1f} s: they are not metered, and not meant for training")
    return result | {
        "train_cpu_s": None if cpu_before is None or cpu_after is None else cpu_after - cpu_before,
        "train_chars": len(train_text), "submission_sha256": hashlib.sha256(source).hexdigest(), "submission_bytes": len(source),
        "unmetered": {"import": _window(imported.report()), "evaluation": None if evaluated is None else _window(evaluated.report())},
        "notes": notes + report.warnings + report.notes, "runner": f"charstat {__version__}",
    }  # fmt: skip


def exit_status(result: dict[str, Any]) -> int:
    """0 qualified, 2 disqualified."""
    return DISQUALIFIED if result["disqualified"] else QUALIFIED


def _ask(child: Submission, step: bytes, payload: bytes, what: str, limit_s: float) -> dict[str, Any]:
    try:
        return child.ask(step, payload, what=what, limit_s=limit_s)
    except TimeoutError:
        raise broken(f"{what} takes longer than {limit_s:g} s") from None


def _evaluate(child: Submission, text: str, tell: Callable[[str, int], None], step_limit_s: float, limit_s: float) -> tuple[float, float]:
    """(the share of characters that were guessed, seconds to the first guess); each guess is here before its character is sent."""
    started = time.monotonic()
    until, correct, first_s, step, sent = started + limit_s, 0, 0.0, b"E", ""
    try:
        for i, char in enumerate(text):
            correct += child.guess(step, sent, min(step_limit_s, until - time.monotonic())) == char
            step, sent, first_s = b"C", char, first_s or time.monotonic() - started
            if i % TELL_CHARS == 0:
                tell("evaluate", i)
        child.ask(b"L", sent.encode("utf-8", "surrogatepass"), what="observe()", limit_s=step_limit_s)
    except TimeoutError:
        if time.monotonic() >= until:
            raise broken(f"the evaluation takes longer than {limit_s:g} s") from None
        raise broken(f"a step of it takes longer than {step_limit_s:g} s") from None
    return correct / len(text), first_s


def _no_op(meter: Callable[[], EnergyMeter], tracker: Callable[[], Any]) -> DevFigures:
    """What the dev rule charges for a train() that does nothing."""
    with DevWindow(meter(), tracker) as window:
        pass
    return window.figures()


def _energy(report: EnergyReport, figures: DevFigures, contract: str) -> dict[str, Any]:
    """The contest's energy fields of the metered window; what was not measured is None, with its reason."""
    fields: dict[str, Any] = {"training_energy_J": figures.gpu_j, "training_duration_s": figures.seconds}
    reasons = {} if figures.gpu_j is not None else {"training_energy_J": report.reasons.get("contest_main_j")}
    if contract == "dev":
        fields |= {"cpu_energy_J": figures.cpu_j, "total_energy_J": figures.total_j}
        if figures.total_j is None:
            reasons["total_energy_J"] = report.reasons.get("contest_dev_j")
    return fields | {"gpu_gross_J": report.gpu_gross_j, "cpu_measured_J": report.cpu_j, "reasons": reasons | _missing(report)}


def _window(report: EnergyReport) -> dict[str, Any]:
    """Seconds and joules of a window that the contest does not meter."""
    return {"seconds": report.seconds, "gpu_gross_J": report.gpu_gross_j, "cpu_measured_J": report.cpu_j, "reasons": _missing(report)}


def _missing(report: EnergyReport) -> dict[str, str]:
    pairs = (("gpu_gross_J", "gpu_gross_j"), ("cpu_measured_J", "cpu_j"), ("gpu_name", "gpu_name"))
    return {ours: report.reasons[theirs] for ours, theirs in pairs if theirs in report.reasons}
