"""In a submission with an expert: the submitter's own model, trained inside train() beside the counting, advises the mixture.

The expert's file is carried as charstat/submitted_expert.py. Its train(text) gets the whole training text and returns what
mixers/combine.py takes as an expert: reset(), observe(char), and probabilities(), an Advice of one row. It is metered like the counting.
The file imports Advice from charstat.advice: a submission carries no more of the package than it needs.
"""

from __future__ import annotations

from charstat.advice import Advice
from charstat.contest.entry import Entry, empty_model
from charstat.mixers.combine import AdvisedMixture


class Silent:
    """An expert that says nothing of its one character."""

    def reset(self) -> None: ...

    def observe(self, char: str) -> None: ...

    def probabilities(self) -> Advice:
        return Advice(["a"], [0.0])


class AdvisedEntry(Entry):
    """An Entry whose model is advised by the submitted expert."""

    def train(self, text: str):
        """Count, then train the expert; the runner's CharModel over both."""
        from charstat.submitted_expert import train

        counted = super().train(text).stream
        expert = train(text)
        return self._class(AdvisedMixture(counted.model.stream(experts=1), [expert]))

    def _warm_up(self) -> None:
        super()._warm_up()
        model = self._class(AdvisedMixture(empty_model().stream(experts=1), [Silent()]))
        model.reset()
        model.predict()
        model.observe("a")
