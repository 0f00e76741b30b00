"""Drives a submission by the contest's rules, in a child process, and meters it from outside.

    import     unmetered by the contest, measured and shown here      the submission's file is executed: installs, compiles
    train      METERED, and stopped at the time limit                 train(train_text)
    evaluate   unmetered by the contest, measured and shown here      reset(), then predict, score, observe for each character

The meter and the text that is scored are in this process; the submission is in another (child.py), which commits a guess before it is
sent the character. Each window starts before the message that starts the step is sent, and ends when the answer has come and
the child has waited for its device: some 50 microseconds more than the call takes. It is no sandbox against files or the network.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from charstat import __version__
from charstat.contest.child import Pipe
from charstat.energy import CODECARBON_FALLBACK_CPU_W, EnergyMeter, EnergyReport
from charstat.errors import CharstatError, CorpusError, ResourceError

ACC_MIN, MAX_TRAIN_S, EVAL_CHARS = 0.70, 300.0, 60_000
CONTRACTS = ("main", "dev")
QUALIFIED, BROKEN, DISQUALIFIED = 0, 1, 2  # exit statuses
TOO_SLOW, TOO_INACCURATE = "train_time_exceeded", "val_accuracy_below_floor"
TELL_CHARS = 500
LONGEST_ANSWER = 1 << 20


class BrokenSubmission(CharstatError):
    """A submission that raises, ends, or does not keep the contract: exit status 1."""

    exit_code = BROKEN


def run_contest(
    submission: str | os.PathLike,
    train_text: str,
    val_text: str,
    *,
    contract: str = "main",
    max_train_s: float = MAX_TRAIN_S,
    acc_min: float = ACC_MIN,
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
    with _Submission(path, contract) as child:
        tell("import", 0)
        with meter() as imported:
            about = child.ask(b"I")
        child.ask(b"T", train_text.encode("utf-8", "surrogatepass"))
        tell("train", 0)
        in_time, trained = True, meter()
        with trained:
            try:
                child.ask(b"R", limit_s=max_train_s)
            except TimeoutError:
                in_time = False
        report = trained.report()
        in_time = in_time and report.seconds <= max_train_s
        accuracy, evaluated = None, None
        if in_time:
            child.ask(b"M")
            evaluated = meter()
            with evaluated:
                accuracy = _evaluate(child, val_text, tell)
    reason = TOO_SLOW if not in_time else TOO_INACCURATE if accuracy < acc_min else None
    result = {"submission": path.stem, "author": about["author"], "contract": contract, **_energy(report, contract)}
    result |= {"val_char_accuracy": accuracy, "val_chars": len(val_text), "gpu_name": report.gpu_name}
    result |= {"date_utc": datetime.now(UTC).isoformat(timespec="seconds"), "disqualified": reason is not None, "reason": reason}
    if reason is not None:
        result |= {"max_train_seconds": max_train_s} if reason == TOO_SLOW else {"acc_min": acc_min}
    notes = ["train() asks for valid_text, which it is not given: training on it is against the rules"] * about["wants_valid_text"]
    return result | {
        "train_chars": len(train_text), "submission_sha256": hashlib.sha256(source).hexdigest(), "submission_bytes": len(source),
        "unmetered": {"import": _window(imported.report()), "evaluation": None if evaluated is None else _window(evaluated.report())},
        "notes": notes + report.warnings + report.notes, "runner": f"charstat {__version__}",
    }  # fmt: skip


def exit_status(result: dict[str, Any]) -> int:
    """0 qualified, 2 disqualified."""
    return DISQUALIFIED if result["disqualified"] else QUALIFIED


def _evaluate(child: _Submission, text: str, tell: Callable[[str, int], None]) -> float:
    """The share of characters that were guessed; each guess is here before its character is sent."""
    correct, last = 0, len(text) - 1
    child.send(b"E")
    for i, char in enumerate(text):
        correct += child.guess() == char
        child.send(b"C" if i < last else b"L", char.encode("utf-8", "surrogatepass"))
        if i % TELL_CHARS == 0:
            tell("evaluate", i)
    child.answer()
    return correct / len(text)


def _energy(report: EnergyReport, contract: str) -> dict[str, Any]:
    """The contest's energy fields of the metered window; what was not measured is None, with its reason."""
    fields: dict[str, Any] = {"training_energy_J": report.contest_main_j, "training_duration_s": report.seconds}
    reasons = {} if report.contest_main_j is not None else {"training_energy_J": report.reasons.get("contest_main_j")}
    if contract == "dev":  # the contest's CPU figure is a constant in practice, so it is one here; the counters' are beside it
        fields |= {"cpu_energy_J": CODECARBON_FALLBACK_CPU_W * report.seconds, "total_energy_J": report.contest_dev_j}
        if report.contest_dev_j is None:
            reasons["total_energy_J"] = report.reasons.get("contest_dev_j")
    return fields | {"gpu_gross_J": report.gpu_gross_j, "cpu_measured_J": report.cpu_j, "reasons": reasons | _missing(report)}


def _window(report: EnergyReport) -> dict[str, Any]:
    """Seconds and joules of a window that the contest does not meter."""
    return {"seconds": report.seconds, "gpu_gross_J": report.gpu_gross_j, "cpu_measured_J": report.cpu_j, "reasons": _missing(report)}


def _missing(report: EnergyReport) -> dict[str, str]:
    pairs = (("gpu_gross_J", "gpu_gross_j"), ("cpu_measured_J", "cpu_j"), ("gpu_name", "gpu_name"))
    return {ours: report.reasons[theirs] for ours, theirs in pairs if theirs in report.reasons}


class _Submission:
    """The child process that holds a submission; on leaving, it and what it started are ended."""

    def __init__(self, path: Path, contract: str):
        self._command = [str(path.absolute()), contract]

    def __enter__(self) -> Self:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("child.py")), str(theirs_in), str(theirs_out), *self._command],
                pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except BaseException:
            os.close(ours_in), os.close(ours_out)
            raise
        finally:
            os.close(theirs_in), os.close(theirs_out)
        self._pipe = Pipe(ours_in, ours_out, LONGEST_ANSWER)
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._pipe.write_fd)  # the child then ends by itself, atexit functions included
        if error[0] is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
        with suppress(ProcessLookupError, PermissionError):  # also what it started: it has a process group of its own
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._pipe.read_fd)

    def ask(self, step: bytes, payload: bytes = b"", limit_s: float = math.inf) -> dict[str, Any]:
        """Have a step done; what the child says of it. TimeoutError after limit_s; BrokenSubmission."""
        until = time.monotonic() + limit_s
        self.send(step, payload)
        while limit_s < math.inf and not select.select([self._pipe.read_fd], [], [], max(0.0, until - time.monotonic()))[0]:
            if time.monotonic() >= until:
                raise TimeoutError
        return self.answer()

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        try:
            self._pipe.send(kind, payload)
        except BrokenPipeError:
            self.answer()  # the reason may still be in the pipe; it is raised there

    def answer(self) -> dict[str, Any]:
        return json.loads(self._receive(b"O"))

    def guess(self) -> str:
        return str(self._receive(b"G"), "utf-8", "surrogatepass")

    def _receive(self, wanted: bytes) -> bytearray:
        try:
            kind, payload = self._pipe.receive()
        except EOFError:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            status = self._process.poll()
            raise BrokenSubmission(f"broken submission: its process ended (status {status}) or closed its pipe") from None
        if kind == b"F":
            raise BrokenSubmission(f"broken submission: {json.loads(payload)}")
        if kind != wanted:
            raise BrokenSubmission("broken submission: it wrote into the runner's pipe")
        return payload
