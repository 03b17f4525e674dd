"""How probable is a slowdown, given noisy differences in one or several parts of the work?

A difference is the effect in its part plus noise. The noise follows Student's t distribution with
two degrees of freedom, whose long tails let one odd pair count little (Lange, Little and Taylor
1989, "Robust statistical modeling using the t distribution"). Its scale is unknown and the same in
all parts. Either all parts share one effect, or each has its own (a spike and a slab, Mitchell and
Beauchamp 1988, "Bayesian variable selection in linear regression"). Before the first difference an
effect is as probably slow as not. All sums are over a fixed grid; nothing is drawn at random.

Differences and effects are logarithms of speed ratios, counted from the limit: slow is below 0.
Arrays may have leading axes, one study each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Parts = Sequence[Sequence[float]]

FREEDOM = 2.0
SCALES = 0.005 * 2.0 ** np.arange(7)  # of the noise, 0.5 to 32 %; the least is its floor
SAME = 0.85  # the probability that all parts share one effect
WIDTH = 0.1  # half of all effects are less than this away from the limit
TINY = 1e-300  # so that what is next to nothing has a logarithm
_STEP = 0.06
_STEPS = (np.arange(-104, 104) + 0.5) * _STEP
NEAR = 0.01  # from the limit, where the grid turns from even steps to shares
GRID = NEAR * np.sinh(_STEPS)  # effects: 0.06 % apart at the limit, 6 % of their size far from it
FAST = slice(len(GRID) // 2, None)


def _log_shares(weights: Floats) -> Floats:
    shares: Floats = np.log(weights / weights.sum())
    return shares


def _log_prior(centre: float) -> Floats:
    """Of the effects of the grid around ``centre``, by Cauchy's distribution."""
    return _log_shares(np.cosh(_STEPS) / (1 + ((GRID + centre) / WIDTH) ** 2))


_LOG_EFFECTS = _log_prior(0.0)
_LOG_SCALES = _log_shares(1 / SCALES)  # twice the noise is half as probable


def log_likelihood(differences: Floats) -> Floats:
    """Of each difference [...], under each scale and effect: [..., scale, effect]."""
    scales = SCALES[:, None]
    misfit = (differences[..., None, None] - GRID) / scales
    found: Floats = -(FREEDOM + 1) / 2 * np.log1p(misfit**2 / FREEDOM) - np.log(scales)
    return found


def part_tables(parts: Parts, centre: float = 0.0) -> Floats:
    """The log-likelihood of all differences of each part: [part, scale, effect].

    The effects are those of the grid around ``centre``.
    """
    tables = [log_likelihood(np.array(part) - centre).sum(axis=0) for part in parts]
    return np.stack(tables)


def weigh(tables: Floats) -> tuple[Floats, Floats]:
    """The probability that no part is slow [...], and that each is [..., part].

    ``tables`` are those of :func:`part_tables`, [..., part, scale, effect].
    """
    whole, fast = _masses(tables)
    shared, shared_fast = _masses(tables.sum(axis=-3))
    every = whole.sum(axis=-2, keepdims=True)
    total = _mixed(shared, every[..., 0, :])
    none_slow = _mixed(shared_fast, fast.sum(axis=-2)) - total
    one_fast = _mixed(shared_fast[..., None, :], every - whole + fast) - total[..., None]
    return np.exp(none_slow), 1 - np.exp(one_fast)


def quantiles(parts: Parts, levels: Sequence[float], part: int | None = None) -> list[float]:
    """The effects in one part, or if all share one, below which these shares of the probability
    lie.
    """
    of_interest = parts if part is None else [parts[part]]
    centre = float(np.median(np.concatenate(of_interest)))
    shares = np.cumsum(_shares(part_tables(parts, centre), _log_prior(centre), part))
    edges = centre + NEAR * np.sinh(np.append(_STEPS - _STEP / 2, _STEPS[-1] + _STEP / 2))
    found: list[float] = np.interp(levels, np.append(0.0, shares), edges).tolist()
    return found


def _shares(tables: Floats, prior: Floats, part: int | None) -> Floats:
    """The probability of each effect, all scales together: [effect]."""
    logs = tables.sum(axis=0) + prior + _LOG_SCALES[:, None]
    if part is not None:
        whole, _ = _masses(tables, prior)
        others = np.delete(whole, part, axis=0).sum(axis=0) + _LOG_SCALES
        own = tables[part] + prior + others[:, None]
        logs = np.logaddexp(np.log(SAME) + logs, np.log1p(-SAME) + own)
    weights = np.exp(logs - logs.max()).sum(axis=0)
    shares: Floats = weights / weights.sum()
    return shares


def _masses(tables: Floats, prior: Floats = _LOG_EFFECTS) -> tuple[Floats, Floats]:
    """The logarithms of the weight of all effects and of the upper half: [..., scale]."""
    logs = tables + prior
    top = logs.max(axis=-1, keepdims=True)
    weights = np.exp(logs - top)
    whole, fast = weights.sum(axis=-1), weights[..., FAST].sum(axis=-1)
    return np.log(whole) + top[..., 0], np.log(np.maximum(fast, TINY)) + top[..., 0]


def _mixed(shared: Floats, apart: Floats) -> Floats:
    """The logarithm of the weight of both cases, all scales together: [..., scale] -> [...]."""
    shared, apart = np.broadcast_arrays(shared, apart)
    both = np.stack([np.log(SAME) + shared, np.log1p(-SAME) + apart], axis=-2) + _LOG_SCALES
    found: Floats = np.logaddexp.reduce(both, axis=(-2, -1))
    return found
