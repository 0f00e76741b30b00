"""What a submission counts: how much of the training text, and which contexts. The figures behind "gate" are in bench/contest/.

Everything is part of the preset, and nothing is measured when it runs: the same text gives the same model on any machine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from charstat.errors import UserError
from charstat.ngram.contexts import select_contexts


@dataclass(frozen=True)
class Preset:
    """The first `chars` characters are counted on the CPU, the first `gpu_chars` on a GPU; contexts, order: as for `charstat build`.

    held_out_chars: so many at the end of what is taken are not counted, but the mixture learns its start from them. cpu_s: seconds that
    the CPU takes at most, on two busy cores (measured, rounded up): after a GPU has failed, it is tried if as many are left.
    """

    name: str
    chars: int
    gpu_chars: int
    contexts: str
    order: int
    held_out_chars: int = 0
    cpu_s: float = 10.0

    def __post_init__(self) -> None:
        if min(self.chars, self.gpu_chars) < 1:
            raise UserError(f"a preset counts at least one character, not {min(self.chars, self.gpu_chars)}")
        if self.held_out_chars < 0:
            raise UserError(f"{self.held_out_chars} characters cannot be held out")
        select_contexts(self.contexts, self.order)

    def to_dict(self) -> dict:
        return asdict(self)


PRESETS = {
    "gate": Preset("gate", 14_000_000, 14_000_000, "words", 8),
    "full": Preset("full", 400_000_000, 540_000_000, "default", 14, held_out_chars=1_000_000, cpu_s=220.0),
}
