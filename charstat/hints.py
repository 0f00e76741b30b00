"""Tilting: another model's guess makes one token likelier, exactly normalised, whatever then comes.

    p'(x) = p(x) e^(beta [x = hint]) / Z          Z = 1 + p(hint) (e^beta - 1)
    nll'  = nll + log Z - beta [target = hint]

The hint and beta must be chosen before the target is known: from the history, a count, a confidence. Then p' is a distribution, and only
two numbers of p are needed for it.
"""

from __future__ import annotations

import numpy as np

from charstat.errors import ArgumentError

CONSISTENT = 1e-2  # nats: between -logp_hint and nll where the hint came; float16 logits are no more exact


def tilt(nll: np.ndarray, logp_hint: np.ndarray, hint: np.ndarray, target: np.ndarray, beta: np.ndarray | float) -> np.ndarray:
    """The negative log-likelihoods of tokens after tilting towards a hint: float64 [n], nats.

    nll: nats of each token that came, [n]. logp_hint: log P of the hint, [n] (ignored where there is none). hint: its id, [n]; negative
    for no hint. target: the ids that came, [n]. beta: how far to tilt, [n] or one number; 0 changes nothing. ArgumentError for other shapes,
    for numbers that are not finite, and where the hint came but logp_hint is not -nll.
    """
    nll, logp, beta = (np.asarray(values, np.float64) for values in (nll, logp_hint, beta))
    hint, target = np.asarray(hint), np.asarray(target)
    if nll.ndim != 1 or not nll.shape == logp.shape == hint.shape == target.shape or beta.shape not in ((), nll.shape):
        shapes = ", ".join(str(a.shape) for a in (nll, logp, hint, target, beta))
        raise ArgumentError(
            f"nll, logp_hint, hint and target must have one length, and beta too unless it is one number: their shapes are {shapes}"
        )
    if hint.dtype.kind not in "iu" or target.dtype.kind not in "iu":
        raise ArgumentError(f"hint and target must be token ids, not {hint.dtype} and {target.dtype}")
    hinted = hint >= 0
    logp = np.where(hinted, logp, 0.0)
    if not (np.isfinite(beta).all() and not np.isnan(nll).any() and not np.isnan(logp).any()):
        raise ArgumentError("nll, logp_hint and beta must be numbers: there is a nan, or an infinite beta")
    if (logp > CONSISTENT).any() or (nll < -CONSISTENT).any():
        raise ArgumentError("logp_hint must be logarithms of probabilities, 0 at most, and nll their negatives, 0 at least; both in nats")
    came = hinted & (hint == target)
    with np.errstate(invalid="ignore"):
        off = came & ~((np.abs(nll + logp) <= CONSISTENT) | (np.isinf(nll) & np.isinf(logp)))
    if off.any():
        i = int(np.flatnonzero(off)[0])
        raise ArgumentError(
            f"at {i} the hint came, but logp_hint is {logp[i]:.6g} and nll {nll[i]:.6g}: they are of one distribution, in nats"
        )
    p = np.minimum(np.exp(logp), 1.0)
    with np.errstate(divide="ignore"):
        log_z = np.logaddexp(np.log1p(-p), np.minimum(logp, 0.0) + beta)  # log(1 + p (e^beta - 1)), for any beta
    return np.where(hinted, nll + log_z - beta * came, nll)
