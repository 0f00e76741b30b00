"""What an audit found: a list of checks, for people and for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass

CAUGHT, PASSED, UNSEEN = "caught", "passed", "not applicable"

# The cheats that are known, by name. Each check says which of them fail it.
RATIO = "a ratio of counts from two hash tables"
TARGET_KEY = "the target in a key"
GATE = "a gate computed from the target"
BEST_EXPERT = "the best expert chosen by the target"
LEARNED_FIRST = "learned before it was scored"
SPREAD = "a token's probability spread over its characters"
TWO_PASSES = "two passes over the text"
MEMORY = "memory of the text from an earlier run"
RESCORED = "figures that are not those of the charges"
DENOMINATOR = "a wrong denominator"


@dataclass(frozen=True)
class Check:
    """One question and its answer.

    verdict: CAUGHT, PASSED or UNSEEN. probes: how often it was asked. suspects: the known cheats that fail in this way.
    """

    id: str
    title: str
    verdict: str
    probes: int
    detail: str
    suspects: tuple[str, ...] = ()


@dataclass(frozen=True)
class AuditReport:
    """chars, bytes: of the text that was read (tokens: how many, else None). bits: what the model charged for it in one pass;
    None if that is infinite, or if the model only guesses. text_sha256: of the text's bytes; of the ids as uint32 where these are not known."""

    subject: str
    chars: int
    bytes: int
    tokens: int | None
    text_sha256: str
    bits: float | None
    seed: int
    checks: tuple[Check, ...]

    @property
    def clean(self) -> bool:
        """Nothing was caught."""
        return not self.caught

    @property
    def caught(self) -> list[str]:
        """The ids of the checks that failed."""
        return [check.id for check in self.checks if check.verdict == CAUGHT]

    @property
    def suspects(self) -> list[str]:
        """The known cheats that fail in the ways that were caught."""
        return list(dict.fromkeys(name for check in self.checks if check.verdict == CAUGHT for name in check.suspects))

    def check(self, id: str) -> Check:
        """The check of that id. KeyError if there is none."""
        return {check.id: check for check in self.checks}[id]

    def to_dict(self) -> dict:
        """What --json prints. Bits per character and byte are those of the charges, over the text's own characters and bytes."""
        known = self.bits is not None
        return {
            **{k: v for k, v in asdict(self).items() if k != "checks"},
            "bits_per_char": self.bits / self.chars if known and self.chars else None,
            "bits_per_byte": self.bits / self.bytes if known and self.bytes else None,
            "clean": self.clean, "caught": self.caught, "suspects": self.suspects, "checks": [asdict(check) for check in self.checks],
        }  # fmt: skip
