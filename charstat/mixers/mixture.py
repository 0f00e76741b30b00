"""The mixture as a CharModel: a stream over a model. The compiled steps are in kernels.py, the inputs in layout.py.

Everything that is learned (mixer weights, evidence, overlay counts, matches) is learned in observe(), after the character was
predicted. reset() restores the initial state exactly; two evaluations in a row give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING

import numpy as np

from charstat.arguments import check_whole
from charstat.errors import ContextError
from charstat.mixers.brackets import bracket_actions
from charstat.mixers.evidence import count_states, online_states, ratio_bins
from charstat.mixers.explanation import Explanation, explain
from charstat.mixers.gates import Evidence, look_up
from charstat.mixers.kernels import distribution, most_likely, move_on, path_probability, run, step, take_advice
from charstat.mixers.layout import MixerLayout, MixerRates
from charstat.mixers.logistic import Mixer, new_mixer
from charstat.mixers.lookups import enter_word
from charstat.mixers.state import CLOCK, FAMILY_COLUMNS, MATCH_OFF, PREPARED, TREE_READY, Fixed, Stream, Tables, new_stream
from charstat.ngram.contexts import Context
from charstat.ngram.layers import joined, shared
from charstat.ngram.match import Match, end_match, ensure_match_room, new_match
from charstat.ngram.overlay import DEFAULT_LIMIT, FAST, SLOW, Overlay, ensure_room, new_overlay
from charstat.ngram.table import identity_bits
from charstat.ngram.words import model_symbol_info
from charstat.symbol_model import SymbolModel, one_at_a_time

if TYPE_CHECKING:
    from charstat.mixers.warm_start import WarmStart
    from charstat.model import Model

MAX_EXPERTS = 100


class Mixture(SymbolModel):
    """A stream on a model.

    rates: tuning of the mixer; None for the defaults, with which a warm start was learned, too. overlay_limit: contexts that each family
    of the overlay holds before it forgets the older half. contexts: names of those that are mixed; by default all of the model's except
    order 0, whose place the bias at every node takes. match: whether the match model is mixed. experts: how many other models give advice: their
    probabilities are inputs like the others, each with a learned weight (a neural net's, PPM's, any). warm_start: begin with the model's
    warm start, where it has one and it fits (all contexts, the match model), or with one that learn_warm_start gave, advice included;
    warm_start_chars says from how many characters it was learned, 0 without. ContextError for contexts that the model lacks, FormatError
    for a warm start of another version's mixer.
    """

    state: Stream
    learned = ("overlay", "mixer")

    def __init__(
        self,
        model: Model,
        rates: MixerRates | None = None,
        overlay_limit: int = DEFAULT_LIMIT,
        contexts: Sequence[str] | None = None,
        match: bool = True,
        experts: int = 0,
        warm_start: bool | WarmStart = True,
    ):
        super().__init__(model)
        if not (rates is None or isinstance(rates, MixerRates)):
            raise TypeError(f"rates must be a MixerRates, not {type(rates).__name__}")
        self._match = bool(match)
        self.experts = check_whole(experts, "experts", 0, MAX_EXPERTS)
        self.layout = MixerLayout(self._choose(contexts), self.experts)
        self.contexts = self.layout.contexts
        self._rates = rates or MixerRates()
        self._limit = max(2 * self.block_symbols, check_whole(overlay_limit, "overlay_limit", 1))
        self._fixed = self._fixed_arrays()
        self._warm_start = self._find_warm_start(warm_start)
        self.warm_start_chars = self._warm_start.chars if self._warm_start else 0

    def _find_warm_start(self, chosen: bool | WarmStart) -> WarmStart | None:
        """What the mixer begins with: the model's own warm start, another one, or None."""
        own = self.model.warm_start.size and self._match and self.contexts == self._choose(None)
        if not (isinstance(chosen, tuple) or (chosen and own)):
            return None
        from charstat.mixers.warm_start import checked_warm_start  # here, because not every submission has that file

        return checked_warm_start(chosen, self.model, self.layout, self.experts, self._match)

    def _choose(self, names: Sequence[str] | None) -> tuple[Context, ...]:
        known = {c.name: c for c in self.model.contexts}
        if names is None:
            return tuple(c for c in known.values() if c.name != "o0" or len(known) == 1)
        names = names.split(",") if isinstance(names, str) else names
        if not isinstance(names, Sequence | set) or not all(isinstance(name, str) for name in names):
            raise ContextError(f"contexts must be names, in a list or in a string with commas, not {names!r:.80}")
        for name in names:
            if name not in known:
                raise ContextError(f"the model has no context {name!r}: it has {', '.join(known)}")
        return tuple(c for c in known.values() if c.name in names)

    def _fixed_arrays(self) -> Fixed:
        model = self.model
        places = ("bits", "start_bits", "bucket_at", "record_at", "row_at", "sum_at")
        families = []
        for c in self.contexts:
            entry = model.manifest["tables"][c.name]
            all_words = c.param == 0 and entry["rows"] == model.vocabulary.size  # only the context p can have a row for every word
            shift = SLOW if c.is_words else FAST
            families.append([c.kind, c.param, c.reach, identity_bits(c), *(entry[place] for place in places), shift, all_words])
        return Fixed(
            tables=Tables(families=np.array(families, np.int64).reshape(-1, FAMILY_COLUMNS), words=model.vocabulary.size, **model.columns),
            tree=self.alphabet.tree.arrays,
            info=model_symbol_info(self.alphabet),
            brackets=bracket_actions(self.alphabet),
            classes=model.classes,
            count_states=count_states(),
            online_states=online_states(),
            ratio_bins=ratio_bins(),
            columns=self.layout.columns,
            first_rows=self.layout.first_rows,
            chains=self.layout.chains,
            rates=np.array(astuple(self._rates)),
        )

    @property
    def mixer(self) -> Mixer:
        """What is learned: weights and evidence, as they are now."""
        return self.state.mixer

    def _restart(self) -> None:
        mixer = new_mixer(self.layout, self._rates)
        if self._warm_start:
            self._warm_start.copy_to(mixer, self.layout)
        self._enter(new_overlay(self.layout.families), new_match(), mixer, self.warm_start_chars)

    def _forget_context(self) -> None:
        old = self.state
        self._enter(old.overlay, end_match(old.match), old.mixer, self._clock())

    def _enter(self, overlay: Overlay, match: Match, mixer: Mixer, clock: int) -> None:
        """Go to the start of a text with what was learned so far."""
        self.state = new_stream(self.layout, overlay, match, mixer)
        self.state.cursor[CLOCK] = clock
        self.state.cursor[MATCH_OFF] = not self._match
        enter_word(self._fixed, self.state)

    def _clock(self) -> int:
        return int(self.state.cursor[CLOCK])

    def _make_room(self) -> None:
        s = self.state
        overlay = s.overlay
        if overlay.layered:
            from charstat.ngram.layers import bounded  # here, because submissions, which fork nothing, do without that file

            overlay = bounded(overlay, self.block_symbols, self._limit)
        overlay = ensure_room(overlay, self.block_symbols, self._clock(), self._limit)
        self._move_to(overlay, ensure_match_room(s.match, self.block_symbols))

    def _move_to(self, overlay: Overlay, match: Match) -> None:
        """Go on with the same contents in other arrays."""
        s = self.state
        if overlay is not s.overlay or match is not s.match:
            s.cursor[PREPARED] = s.cursor[TREE_READY] = 0
            self.state = s._replace(overlay=overlay, match=match)

    def _share(self) -> None:
        self._move_to(shared(self.state.overlay, self.block_symbols, self._limit), self.state.match)

    def _unshare(self) -> None:
        self._move_to(joined(self.state.overlay, self.block_symbols), self.state.match)

    @property
    def n_bytes(self) -> int:
        """Bytes held beside the count tables, by now."""
        s = self.state
        return sum(a.nbytes for part in (s, s.overlay, s.match, s.mixer) for a in part if isinstance(a, np.ndarray)) if s else 0

    def _fill(self, out: np.ndarray) -> None:
        distribution(self._fixed, self.state, out)

    def _likeliest(self) -> int:
        return int(most_likely(self._fixed, self.state, self._best_rare))

    def _probability_of(self, symbol: int) -> float:
        return float(path_probability(self._fixed, self.state, symbol))

    def _step(self, symbol: int) -> None:
        step(self._fixed, self.state, symbol)

    def _move_on(self, symbol: int) -> None:
        match = self.state.match
        if match.state[0] == match.text.size:
            self.state = self.state._replace(match=match._replace(text=np.concatenate([match.text, np.zeros_like(match.text)])))
        move_on(self._fixed, self.state, symbol)

    @one_at_a_time
    def evidence(self, text: str) -> Evidence:
        """Observe a text; what the longest character context has seen before each character (mixers/gates.py), to gate other models."""
        symbols, table = self.alphabet.encode(text), np.empty((len(text), 4), np.float32)
        for part in self._blocks(len(text)):
            for i, symbol in enumerate(symbols[part].tolist(), part.start):
                look_up(self._fixed, self.state, table[i])
                (self._move_on if self._frozen_from else self._step)(symbol)
        return Evidence.of(table)

    @one_at_a_time
    def explain(self, char: str) -> Explanation:
        """What every source says of this character before it is observed (mixers/explanation.py). Learns nothing, and stays here."""
        self._symbol(char)
        self._ready()
        return explain(self._fixed, self.state, self.layout, self.alphabet, char)

    def _take_advice(self, advice: np.ndarray) -> None:
        take_advice(self.state.experts, advice)

    def _run_symbols(self, symbols: np.ndarray, p: np.ndarray, guesses: np.ndarray, rows: np.ndarray, advice: np.ndarray) -> None:
        run(self._fixed, self.state, symbols, p, guesses, rows, self._best_rare, advice)
