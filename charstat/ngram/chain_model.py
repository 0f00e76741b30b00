"""ChainModel: the Python side that PPM, context-tree weighting and Kneser-Ney share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from charstat.ngram.chain import POSITION, READY, Chain, move_on, start_text
from charstat.ngram.overlay import ensure_room
from charstat.symbol_model import SymbolModel

if TYPE_CHECKING:
    from charstat.model import Model


class ChainModel(SymbolModel):
    """A SymbolModel on a Chain.

    state: a NamedTuple with a `place`, and with an `overlay` if the model counts online. overlay_limit: how many contexts each level
    of the overlay may hold before it forgets the older half; None if the model counts nothing in an overlay.
    """

    def __init__(self, model: Model, chain: Chain, overlay_limit: int | None = None):
        super().__init__(model)
        self.chain = chain
        self._limit = None if overlay_limit is None else max(2 * self.block_symbols, overlay_limit)

    def _forget_context(self) -> None:
        start_text(self.state.place)

    def _clock(self) -> int:
        return int(self.state.place.at[POSITION])

    def _move_on(self, symbol: int) -> None:
        move_on(self.state.place, symbol)

    def _make_room(self) -> None:
        if self._limit is None:
            return
        s = self.state
        overlay = ensure_room(s.overlay, self.block_symbols, self._clock(), self._limit)
        if overlay is not s.overlay:
            s.place.at[READY] = 0
            self.state = s._replace(overlay=overlay)
