"""How much a forecast leans on each feature, and a transformer on each session of its window.

For a feature it is what is left of the forecast when the feature is exchanged. Beside it stands what the
feature itself says of the returns: where the two part, model and market no longer agree. A feature's
whole windows are exchanged among the symbols of a session, never between sessions, so that what the
market did that day stays as it was.
Source: Breiman (2001), Random forests; Fisher, Rudin and Dominici (2019), All models are wrong.
"""

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import pandas as pd

from pitwise.evaluation import metrics
from pitwise.registry.contract import run_onnx


@dataclass(frozen=True)
class Windows:
    """Windows of whole sessions, as they were served."""

    values: np.ndarray
    """(n, window, n_features) float32."""
    symbols: np.ndarray
    """(n,)"""
    sessions: np.ndarray
    """(n,) numbers; rows of one session have the same."""
    returns: np.ndarray
    """(n,) what came, NaN where it is not known."""


def scores(session: ort.InferenceSession, values: np.ndarray) -> np.ndarray:
    """What ranks the symbols; (n,) float64."""
    return run_onnx(session, values)["score"].astype(float)


def permutation_importance(
    session: ort.InferenceSession, windows: Windows, features: tuple[str, ...], seed: int
) -> pd.DataFrame:
    """The rank IC lost, and how far the ranking moves, when a feature is exchanged within sessions.

    Returns:
        by feature, in order of `moved`: `moved`, 1 - the mean rank correlation of the scores before and
        after, which needs no outcome and little luck; `lost`, the mean rank IC less that of the
        exchanged windows; `rank_ic`, the mean rank correlation of the feature's last value itself with
        what came; `moved_se`, `lost_se` and `rank_ic_se`, standard errors over sessions. NaN where there
        is nothing to tell by.
    """
    said = scores(session, windows.values)
    ic = metrics.rank_ic(said, windows.returns, windows.sessions)
    rng = np.random.default_rng(seed)
    rows = []
    for at, name in enumerate(features):
        exchanged = windows.values.copy()
        exchanged[:, :, at] = windows.values[_within(windows.sessions, rng), :, at]
        then = scores(session, exchanged)
        alike = metrics.rank_ic(said, then, windows.sessions)
        lost = ic - metrics.rank_ic(then, windows.returns, windows.sessions)
        left = np.nan_to_num(alike)
        own = metrics.rank_ic(windows.values[:, -1, at].astype(float), windows.returns, windows.sessions)
        (mean_lost, lost_se), (rank_ic, rank_ic_se) = _mean_and_error(lost), _mean_and_error(own)
        rows.append(
            {
                "feature": name,
                # Where the ranking no longer has differences, nothing of it is left.
                "moved": float(1 - left.mean()),
                "moved_se": _mean_and_error(left)[1],
                "lost": mean_lost,
                "lost_se": lost_se,
                "rank_ic": rank_ic,
                "rank_ic_se": rank_ic_se,
            }
        )
    return pd.DataFrame(rows).sort_values("moved", ascending=False, ignore_index=True)


def attention_by_session(shares: np.ndarray, sessions: np.ndarray) -> pd.DataFrame:
    """How much each session of the window has to do with what a transformer said in a week.

    Args:
        shares: (n, window), oldest session first, see `pitwise.registry.attention`.
        sessions: (n,) numbers, as in `Windows`.

    Returns:
        by `back`, sessions before the window's last one, from 0 on: `share`, the mean of the sessions'
        means, and `share_se`, its standard error over sessions; NaN where there is one session alone.
    """
    means = pd.DataFrame(shares.astype(float)).groupby(sessions).mean().to_numpy()[:, ::-1]
    found = pd.DataFrame([_mean_and_error(column) for column in means.T], columns=["share", "share_se"])
    return found.rename_axis("back").reset_index()


def _mean_and_error(by_session: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error over the sessions that are known; NaN where they are too few."""
    known = by_session[np.isfinite(by_session)]
    mean = float(known.mean()) if len(known) else np.nan
    return mean, float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else np.nan


def _within(sessions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions of the rows, exchanged at random within each session; (n,)."""
    shuffled = np.lexsort((rng.random(len(sessions)), sessions))
    result = np.empty(len(sessions), dtype=int)
    result[np.argsort(sessions, kind="stable")] = shuffled
    return result
