"""The audit: seven questions to a model of the next character or token, each asked many times; none needs its source.

    causality      change what comes later: nothing that was charged before may change
    sum            what would be charged for each unit that could come, as probabilities, adds up to 1 at most
    agreement      predict() gives every unit the probability that is charged for it
    order          what is charged for a unit is what the state before it said; being asked teaches nothing
    one pass       reset() forgets the text: a second run charges the same
    chunks         in pieces, the text costs what it costs as a whole
    denominator    the figures that a model reports are its charges divided by the text's own characters or bytes

C1 to C4 are the conditions of score-first evaluation as OpenAI's parameter-golf states them: causal, normalised and independent of the
target, scored before learned, one pass. The checks see the first characters of a text, not what a model does only later.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from charstat.auditing import DEFAULT_POSITIONS, DEFAULT_PROBES, DEFAULT_TOLERANCE
from charstat.auditing.report import (
    BEST_EXPERT,
    CAUGHT,
    DENOMINATOR,
    GATE,
    LEARNED_FIRST,
    MEMORY,
    PASSED,
    RATIO,
    RESCORED,
    SPREAD,
    TARGET_KEY,
    TWO_PASSES,
    UNSEEN,
    AuditReport,
    Check,
)  # fmt: skip
from charstat.auditing.subject import GuessSubject, SteppedSubject, Subject, TokenSubject, Units, WrongCharges, subject_of
from charstat.errors import UserError

STEPPED_PROBES = 30  # of causality, where the audit itself hands over one unit at a time
ENOUGH = 20  # findings of one check
TOKEN_REACH = 32  # characters: no token is longer
REPLAYED = 3  # candidates of each position that are charged by replay, too, where forks are used
ASKED = 400  # units before which a model is asked again and again

TITLES = {
    "causality": "C1 causality: what comes later changes nothing",
    "sum": "C2 normalised: what could have been charged adds up to 1",
    "agreement": "C2 independent of the target: predict() says what is charged",
    "order": "C3 scored before learned",
    "one pass": "C4 one pass, no rescoring",
    "chunks": "in chunks as in one call",
    "denominator": "figures and denominator",
}


class Audit:
    """One audit: the subject, the bits of the reference run, and where to look."""

    def __init__(self, subject: Subject, probes: int, positions: int, tolerance: float, seed: int):
        self.subject, self.units, self.tolerance, self.probes = subject, subject.units, tolerance, probes
        self.random = np.random.default_rng(seed)
        self.bits = subject.charge(subject.fresh(), self.units)
        self.alphabet = subject.alphabet(subject.fresh())
        self.known = set(self.units if isinstance(self.units, str) else self.units.tolist())
        n = len(self.units)
        early = self.random.integers(0, min(n, 64), positions // 2)
        self.positions = sorted({*early.tolist(), *self.random.integers(0, n, positions - len(early)).tolist()})
        self.charged: dict[int, np.ndarray] = {}

    def same(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Where two arrays of bits are equal within the tolerance; infinities equal each other."""
        with np.errstate(invalid="ignore"):
            return (a == b) | (np.abs(a - b) <= self.tolerance) | (np.isnan(a) & np.isnan(b))

    def changed(self, probe: int, t: int) -> Units:
        """The text with another future from t on, of the same units: cut off, with one other unit at t, or with nothing kept."""
        units, n, one, join = self.units, len(self.units), self.subject.one, self.subject.join
        if probe % 3 == 0:
            return units[:t]
        if probe % 3 == 1:
            others = [units[i] for i in self.random.choice(n, 8).tolist() if units[i] != units[t]]
            return join(units[:t], *map(one, others[:1]), units[t + 1 :])
        return join(units[:t], *(one(units[i]) for i in self.random.choice(n, n - t).tolist()))

    def causality(self) -> Check:
        stepped = isinstance(self.subject, SteppedSubject | GuessSubject)
        probes = min(self.probes, STEPPED_PROBES) if stepped else self.probes
        found, reach, worst, done = 0, 0, 0.0, 0
        for probe in range(probes):
            t = int(self.random.integers(1, len(self.units)))
            bits = self.subject.charge(self.subject.fresh(), self.changed(probe, t))[:t]
            done += 1
            differ = np.flatnonzero(~self.same(bits, self.bits[:t]))
            if differ.size:
                found, reach = found + 1, max(reach, t - int(differ[0]))
                with np.errstate(invalid="ignore"):
                    worst = max(worst, float(np.nan_to_num(np.abs(bits - self.bits[:t])[differ], nan=0.0, posinf=99.0).max()))
            if found == ENOUGH:
                break
        what = "guess" if self.subject.is_guess else "charge"
        if not found:
            how = ", handed over one by one" if stepped else ""
            return self.passed("causality", done, f"{done:,} other futures{how}: no earlier {what} changed")
        near = reach <= TOKEN_REACH and self.subject.unit == "character"
        detail = f"{found} of {done:,} other futures changed earlier {what}s, up to {reach:,} {self.subject.unit}s back, by up to {worst:.3g} bits"
        return self.caught("causality", done, detail, [SPREAD] if near else [TWO_PASSES])

    def states(self) -> Iterator[tuple[int, Any]]:
        """(position, the model there), rising; only for models that fork."""
        model, at = self.subject.fresh(), 0
        for t in self.positions:
            if t > at:
                self.subject.charge(model, self.units[at:t])
                at = t
            yield t, model

    def replay(self, t: int, unit: Any) -> float:
        """The bits charged for a unit at t, in one call over the text up to there."""
        return float(self.subject.charge(self.subject.fresh(), self.subject.join(self.units[:t], self.subject.one(unit)))[-1])

    def enumerate(self) -> None:
        """self.charged[t][i] := bits charged for alphabet[i] at t."""
        subject, forked = self.subject, self.subject.forks
        if forked:
            for t, model in self.states():

                def charge(unit: Any, model: Any = model) -> float:
                    return subject.charge(subject.fork(model), subject.one(unit))[0]

                self.charged[t] = np.array([self.offered(unit, charge) for unit in self.alphabet])
            forked = all(self._replays_agree(t) for t in self.positions)
        if not forked:
            for t in self.positions:
                self.charged[t] = np.array([self.offered(unit, lambda unit, t=t: self.replay(t, unit)) for unit in self.alphabet])

    def offered(self, unit: Any, charge: Callable[[Any], float]) -> float:
        """The bits charged for a unit; infinite for one that the text lacks and the model refuses."""
        try:
            return float(charge(unit))
        except UserError:
            if unit in self.known:
                raise
            return math.inf

    def _replays_agree(self, t: int) -> bool:
        some = [self.alphabet.index(self.units[t]), *self.random.choice(len(self.alphabet), REPLAYED).tolist()]
        replayed = [self.offered(self.alphabet[i], lambda unit: self.replay(t, unit)) for i in some]
        return bool(self.same(np.array(replayed), self.charged[t][some]).all())

    def sum(self) -> Check:
        if self.subject.is_guess:
            return self.unseen("sum", "the model guesses and charges nothing")
        sums, negative = {}, 0
        for t, bits in self.charged.items():
            p = np.exp2(-bits)
            negative += int((bits < -self.tolerance).sum() + np.isnan(bits).sum())
            sums[t] = math.fsum(p[np.isfinite(p)])
        sums |= {-1 - t: total for t, total in self._predicted_sums().items()}
        most, least = max(sums.values()), min(sums.values())
        wrong = [
            t
            for t, total in sums.items()
            if total > 1.0 + self.tolerance or (self.subject.complete and t >= 0 and total < 1.0 - self.tolerance)
        ]
        n, span = len(self.alphabet), f"{least:.6f} to {most:.6f}" if most < 1e3 else f"{least:.3g} to {most:.3g}"
        if wrong or negative:
            t = max(wrong, key=sums.__getitem__, default=self.positions[0])
            where = f"predict() at {-1 - t:,}" if t < 0 else f"the charges at {t:,}"
            extra = f"; {negative} charges are negative or not a number" if negative else ""
            detail = f"{where} add up to {sums.get(t, math.nan):.6g} over {n} {self.subject.unit}s; sums run from {span}{extra}"
            return self.caught("sum", len(sums) * n, detail, [RATIO, TARGET_KEY, GATE, BEST_EXPERT, LEARNED_FIRST])
        rest = "" if self.subject.complete else "; the rest is for characters not tried"
        return self.passed("sum", len(sums) * n, f"sums over {n} {self.subject.unit}s at {len(self.charged)} positions: {span}{rest}")

    def _predicted_sums(self) -> dict[int, float]:
        """What predict() itself adds up to."""
        if not self.subject.asks or self.subject.is_guess:
            return {}
        model, sums = self.subject.fresh(), {}
        for t in range(min(ASKED, len(self.units))):
            if t in self.charged:
                sums[t] = math.fsum(self.subject.ask(model).values())
            self.subject.observe(model, self.units[t])
        return sums

    def agreement(self) -> Check:
        if not self.subject.asks or self.subject.is_guess or isinstance(self.subject, SteppedSubject):
            why = (
                "what is charged is what predict() says"
                if isinstance(self.subject, SteppedSubject)
                else "the model has no predict() of probabilities"
            )
            return self.unseen("agreement", why)
        model, at, compared, wrong, example = self.subject.fresh(), 0, 0, 0, ""
        for t, bits in self.charged.items():
            if t > at:
                self.subject.charge(model, self.units[at:t])
                at = t
            said = self.subject.ask(model)
            for unit, charge in zip(self.alphabet, bits, strict=True):
                if unit not in said:
                    continue
                compared += 1
                told = -math.log2(said[unit]) if said[unit] > 0 else math.inf
                if not bool(self.same(np.array(told), np.array(charge))):
                    wrong += 1
                    example = example or f"at {t:,}, {unit!r}: predict() says {told:.4f} bits, {charge:.4f} are charged"
        if wrong:
            detail = f"{wrong:,} of {compared:,} charges are not what predict() says, {example}"
            return self.caught("agreement", compared, detail, [TARGET_KEY, GATE, BEST_EXPERT, LEARNED_FIRST])
        return self.passed("agreement", compared, f"{compared:,} charges, of what came and of what could have, are what predict() says")

    def order(self) -> Check:
        if not self.subject.asks:
            return self.unseen("order", "the model has no predict() to ask before a character comes; a sum above 1 shows what learns first")
        model, n = self.subject.fresh(), min(ASKED, len(self.units))
        before, after = np.empty(n), np.empty(n)
        for t in range(n):
            if self.subject.is_guess:
                before[t] = self.bits[t]
                for _ in range(2):
                    self.subject.guarded("predict()", model.predict)
            else:
                answers = [self.subject.ask(model).get(self.units[t], 0.0) for _ in range(3)]
                before[t] = -math.log2(answers[0]) if answers[0] > 0 else math.inf
                if answers[0] != answers[1] or answers[0] != answers[2]:
                    detail = f"asked three times at {t:,}, the model gives {', '.join(f'{a:.6g}' for a in answers)} for what comes"
                    return self.caught("order", t + 1, detail, [LEARNED_FIRST])
            after[t] = self.subject.charge(model, self.subject.one(self.units[t]))[0]
        listed = np.isfinite(before)  # predict() need not list what is rare
        cheap = np.flatnonzero(listed & ~self.same(before, self.bits[:n]))
        taught = np.flatnonzero(~self.same(after, self.bits[:n]))
        if cheap.size:
            t = int(cheap[0])
            gain = float((before - self.bits[:n])[cheap].mean())
            detail = f"{cheap.size:,} of {n:,} characters cost {gain:.3g} bits less on average than the state before them said, the first at {t:,}"
            return self.caught("order", n, detail, [LEARNED_FIRST, TARGET_KEY, GATE, BEST_EXPERT])
        if taught.size:
            return self.caught("order", n, f"being asked changes what is charged, first at {int(taught[0]):,}", [LEARNED_FIRST])
        return self.passed(
            "order", n, f"the state before each of {n:,} characters said what was charged; asking three times changed nothing"
        )

    def one_pass(self) -> Check:
        runs = [self.subject.charge(self.subject.fresh(), self.units)]
        if self.subject.factory:
            runs.append(self.subject.charge(self.subject.fresh(new=True), self.units))
        for bits in runs:
            differ = np.flatnonzero(~self.same(bits, self.bits))
            if differ.size:
                gain = float(np.nan_to_num((self.bits - bits)[differ], nan=0.0, posinf=0.0, neginf=0.0).mean())
                detail = f"the same text again, after reset(): {differ.size:,} charges differ, by {gain:+.3g} bits less on average"
                return self.caught("one pass", len(runs), detail, [MEMORY])
        new = ", and so does a new model" if len(runs) > 1 else ""
        return self.passed("one pass", len(runs), f"after reset() the same text costs the same{new}")

    def chunks(self) -> Check:
        model, at, cuts, bits = self.subject.fresh(), 0, 0, []
        while at < len(self.units):
            step = min(int(self.random.choice([1, 2, 3, 7, 31, 97, 300])), 1 + len(self.units) // 3)
            bits.append(self.subject.charge(model, self.units[at : at + step]))
            at, cuts = at + step, cuts + 1
        differ = np.flatnonzero(~self.same(np.concatenate(bits), self.bits))
        if not differ.size:
            return self.passed("chunks", cuts, f"cut into {cuts:,} calls, every charge stays the same")
        gain = float(np.nan_to_num((np.concatenate(bits) - self.bits), nan=0.0, posinf=0.0, neginf=0.0).mean())
        detail = f"cut into {cuts:,} calls, {differ.size:,} charges differ, by {gain:+.3g} bits on average over the text"
        suspects = [SPREAD] if self.reach_is_short() else [TWO_PASSES]
        return self.caught("chunks", cuts, detail, suspects)

    def reach_is_short(self) -> bool:
        return any(check.id == "causality" and SPREAD in check.suspects for check in self.done)

    def denominator(self) -> Check:
        text, n_bytes = self.subject.text, len(self.subject.encoded)
        if not n_bytes:
            return self.unseen("denominator", "the model does not know the bytes of its tokens (token_bytes)")
        truth = {"chars": len(text), "bytes": n_bytes}
        if isinstance(self.subject, TokenSubject):
            pieces = b"".join(self.subject.pieces())
            if len(pieces) != n_bytes:
                return self.caught(
                    "denominator", 1, f"the pieces of the tokens have {len(pieces):,} bytes, the text {n_bytes:,}", [DENOMINATOR]
                )
            if pieces != self.subject.encoded:
                return self.caught("denominator", 1, "the pieces of the tokens spell another text", [DENOMINATOR])
        if not self.subject.is_guess:
            total = float(self.bits.sum())
            truth |= {"bits": total, "bits_per_char": total / len(text), "bits_per_byte": total / n_bytes}
        claims = getattr(self.subject.model, "claims", None)
        if not callable(claims):
            pieces = "; the pieces spell the text" if isinstance(self.subject, TokenSubject) else ""
            shown = f"{truth['bits']:,.1f} bits over " if "bits" in truth else ""
            return self.passed(
                "denominator", 1, f"{shown}{len(text):,} characters, {n_bytes:,} bytes{pieces}; the model claims nothing of its own"
            )
        self.subject.charge(self.subject.fresh(), self.units)
        said = self.subject.guarded(f"{self.subject.name}.claims()", claims, text)
        if not isinstance(said, dict):
            raise UserError(f"{self.subject.name}.claims() must return a dictionary of figures, not {type(said).__name__}")
        if not all(isinstance(value, int | float | np.number) for value in said.values()):
            raise UserError(f"{self.subject.name}.claims() must return numbers: {said!r:.100}")
        unknown = sorted(set(said) - set(truth))
        if unknown:
            raise UserError(f"{self.subject.name}.claims() has {', '.join(map(repr, unknown))}: an audit can check {', '.join(truth)}")
        wrong = [name for name in said if not math.isclose(said[name], truth[name], rel_tol=1e-4)]
        if not wrong:
            return self.passed("denominator", len(said), f"{', '.join(said)} as claimed: {', '.join(f'{v:g}' for v in said.values())}")
        detail = "; ".join(f"{name}: {said[name]:g} claimed, {truth[name]:g} found" for name in wrong)
        of_bits = {"bits"} & set(wrong)
        return self.caught("denominator", len(said), detail, [RESCORED] if of_bits else [DENOMINATOR, RESCORED])

    def passed(self, id: str, probes: int, detail: str) -> Check:
        return Check(id, TITLES[id], PASSED, probes, detail)

    def caught(self, id: str, probes: int, detail: str, suspects: Iterable[str]) -> Check:
        return Check(id, TITLES[id], CAUGHT, probes, detail, tuple(suspects))

    def unseen(self, id: str, why: str) -> Check:
        return Check(id, TITLES[id], UNSEEN, 0, why)

    def run(self, progress: Callable[[int, int], None] | None) -> tuple[Check, ...]:
        self.done: list[Check] = []
        steps = (self.causality, self.one_pass, self.chunks, self.sum, self.agreement, self.order, self.denominator)
        for i, step in enumerate(steps):
            if step == self.sum and not self.subject.is_guess:
                self.enumerate()
            self.done.append(step())
            if progress:
                progress(i + 1, len(steps))
        return tuple(sorted(self.done, key=lambda check: list(TITLES).index(check.id)))


def audit(
    source: Any,
    text: str | bytes | np.ndarray,
    *,
    probes: int = DEFAULT_PROBES,
    positions: int = DEFAULT_POSITIONS,
    tolerance: float = DEFAULT_TOLERANCE,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> AuditReport:
    """Ask a model whether it charges honestly for a text.

    source: a model, or a callable that makes one; subject.py says what a model must have. text: a few thousand characters, or as many bytes
    for a model of bytes, or ids for one of tokens; all of it is used, and it is replayed once for each probe. probes: other futures.
    positions: where everything that could come is charged. tolerance: of bits and of sums. progress: told (checks done, of how many).
    UserError for what cannot be audited, or fails when asked.
    """
    if not isinstance(text, str | bytes | bytearray | np.ndarray) or len(text) < 2:
        raise UserError("an audit needs a text of two characters or bytes at least, or an array of two token ids")
    if probes < 1 or positions < 1 or not 0.0 <= tolerance < 1.0:
        raise UserError(f"probes and positions must be 1 or more, and tolerance from 0 to 1: {probes}, {positions}, {tolerance:g}")
    subject = subject_of(source, text)
    bits = None
    try:
        work = Audit(subject, probes, positions, tolerance, seed)
        checks = work.run(progress)
        total = float(work.bits.sum())
        bits = total if math.isfinite(total) and not subject.is_guess else None
    except WrongCharges as e:
        title = TITLES["denominator"]
        checks = (Check("denominator", title, CAUGHT, 1, f"{e}: each one is to be charged, once", (DENOMINATOR,)),)
    encoded, tokens = subject.encoded, len(subject.units) if isinstance(subject, TokenSubject) else None
    digest = hashlib.sha256(encoded or np.asarray(subject.units, "<u4").tobytes()).hexdigest()
    return AuditReport(subject.name, len(subject.text), len(encoded), tokens, digest, bits, seed, checks)
