"""Bars that no check refuses and that stand out all the same, by an isolation forest.

Stage `quality` fits the forest on all clean bars, once, and keeps it with each symbol's usual return,
range and volume. A bar that comes later is scored by what was kept, in milliseconds: neither it nor what
follows it bears upon what is usual. At the bars that it was fitted on the forest looks back.

The forest is kept as arrays in an npz file that is read without pickle, and scored here. A pickled
(joblib) forest would run whatever code its file holds, and open in the scikit-learn that wrote it alone;
the service would have to load scikit-learn for it besides.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from pitwise.bars.returns import log_returns
from pitwise.errors import DataError
from pitwise.workspace import Artifact, replacing

FOREST = Artifact("data/quality/forest.npz")
VERSION = 1
"""Of the file's arrays; a file of another one is not read."""
MEASURES = {"log_return": "return", "log_range": "high-low range", "log_volume": "volume"}
"""What a bar is scored by, each in the symbol's own deviations from its median."""
MAD_TO_SIGMA = 1.4826
"""Median absolute deviation to standard deviation, for normal data."""
DIGITS = 6
"""Of a score: beyond them it depends on the order of a sum."""
ORDINARY = 0.5
"""Score of a bar like all the others; below it none is flagged."""


@dataclass(frozen=True)
class Forest:
    """A fitted isolation forest, and what is usual for each symbol."""

    symbols: np.ndarray
    """(n_symbols,) str, sorted."""
    median: np.ndarray
    """(n_symbols, 3) float64, of the `MEASURES` before they are in deviations."""
    deviation: np.ndarray
    """(n_symbols, 3) float64 > 0, robust."""
    roots: np.ndarray
    """(n_trees,) int32: the node that each tree begins with."""
    feature: np.ndarray
    """(n_nodes,) int8: the measure that a node asks for."""
    threshold: np.ndarray
    """(n_nodes,) float64: a bar goes left where its measure is at most this."""
    left: np.ndarray
    """(n_nodes,) int32: the next node; at a leaf the node itself, as in `right`."""
    right: np.ndarray
    path: np.ndarray
    """(n_nodes,) float64: of a leaf, nodes above it, and the mean path in a tree of its bars."""
    usual_path: float
    """Mean path of a bar through all trees, added up."""
    limit: float
    """A bar with a score above this is flagged."""

    def measures(self, bars: pd.DataFrame) -> pd.DataFrame:
        """The `MEASURES` of clean bars; (n, 3) in the symbol's own robust deviations.

        NaN in the rows of a symbol that the forest has not seen. A segment's first bar has no return,
        which counts as usual.

        Args:
            bars: as traded, with their factors and `segment`; each symbol's in order of date.
        """
        at = pd.Index(self.symbols).get_indexer(bars["symbol"].astype(object))
        values = ((_values(bars) - self.median[at]) / self.deviation[at]).fillna(0)
        values[at < 0] = np.nan
        return values

    def score(self, measured: pd.DataFrame) -> np.ndarray:
        """Of each row of measures the score of Liu, Ting & Zhou (2008), 0 to 1; NaN where they are."""
        # As scikit-learn: float32 values against float64 thresholds.
        values = measured[list(MEASURES)].to_numpy("float32")
        rows = np.arange(len(values))[:, None]
        node = np.broadcast_to(self.roots, (len(values), len(self.roots)))
        while True:
            goes_left = values[rows, self.feature[node]] <= self.threshold[node]
            following = np.where(goes_left, self.left[node], self.right[node])
            if (following == node).all():
                break
            node = following
        total = self.path[node].sum(axis=1)
        share = total / self.usual_path if self.usual_path else np.ones(len(total))
        return np.where(np.isnan(values).any(axis=1), np.nan, np.round(2**-share, DIGITS))

    def flags(self, bars: pd.DataFrame) -> pd.DataFrame:
        """symbol, date, score, the measures, and `flagged`: a nullable bool, NA of an unseen symbol."""
        measured = self.measures(bars)
        score = self.score(measured)
        flagged = pd.Series(score > self.limit, bars.index, "boolean").mask(np.isnan(score))
        return bars[["symbol", "date"]].assign(score=score, **measured, flagged=flagged)


def fit(
    bars: pd.DataFrame, contamination: float, trees: int, sample: int, seed: int
) -> tuple[Forest, pd.DataFrame]:
    """Fit a forest on clean bars.

    A symbol's median and median absolute deviation stand for its mean and deviation, since the
    outliers sought must not widen the scale. Where that is 0 (prices that hardly ever move), the usual
    deviation of the other symbols is taken.

    Args:
        bars: as traded, with their factors and `segment`, sorted by symbol and date.
        contamination: the share of these bars that are flagged at most, rounded up.
        trees: of the forest.
        sample: bars drawn for each tree.

    Returns:
        the forest, and `Forest.flags` of these bars.
    """
    from sklearn.ensemble import IsolationForest  # here: whoever only scores need not load it

    values = _values(bars)
    symbol = bars["symbol"].astype(object)
    median = values.groupby(symbol).median()
    distance = values - median.loc[symbol].set_axis(bars.index)
    deviation = distance.abs().groupby(symbol).median().replace(0, np.nan)
    deviation = MAD_TO_SIGMA * deviation.fillna(deviation.median()).fillna(1)
    measured = (distance / deviation.loc[symbol].set_axis(bars.index)).fillna(0)

    fitted = IsolationForest(
        n_estimators=trees, max_samples=min(sample, len(bars)), random_state=seed
    ).fit(measured.to_numpy())
    score = np.round(-fitted.score_samples(measured.to_numpy()), DIGITS)
    most = int(np.ceil(contamination * len(bars)))
    beyond = np.sort(score)[-most - 1] if most < len(score) else 0.0
    limit = max(ORDINARY, float(beyond))
    forest = Forest(
        median.index.to_numpy(str),
        median.to_numpy(),
        deviation.loc[median.index].to_numpy(),
        **_nodes([tree.tree_ for tree in fitted.estimators_]),
        usual_path=float(trees * _mean_path(np.array([fitted.max_samples_]))[0]),
        limit=limit,
    )
    flagged = pd.array(score > limit, "boolean")
    return forest, bars[["symbol", "date"]].assign(score=score, **measured, flagged=flagged)


def save(forest: Forest, path: Path) -> None:
    """Write a forest; the same forest makes the same file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, version=VERSION, measures=list(MEASURES), **asdict(forest))


def load(path: Path) -> Forest | None:
    """Read a forest; None where stage `quality` has written none.

    Raises:
        DataError: the file cannot be read, or is of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, BadZipFile) as error:
        raise DataError(f"{path}: cannot be read ({error}). Run `dvc repro -f -s quality`.") from error
    said = int(arrays.get("version", 0)), list(arrays.get("measures", ()))
    if said != (VERSION, list(MEASURES)):
        raise DataError(f"{path}: is of another version. Run `dvc repro -f -s quality`.")
    found = {field.name: arrays[field.name] for field in fields(Forest)}
    return Forest(**found | {name: float(found[name]) for name in ("usual_path", "limit")})


def newest_two(bars: pd.DataFrame) -> pd.DataFrame:
    """Each symbol's last two bars: what the measures of its newest one take."""
    return bars.groupby("symbol", sort=False).tail(2)


def _values(bars: pd.DataFrame) -> pd.DataFrame:
    """The measures before they are in deviations, on the basis of each symbol's first session.

    A later split changes nothing on it, so a median stays what it was.
    """
    close = bars["close"] * bars["price_factor"]
    return pd.DataFrame(
        {
            "log_return": log_returns(bars[["symbol", "segment"]].assign(close=close)),
            "log_range": np.log(bars["high"] / bars["low"]),
            "log_volume": np.log1p(bars["volume"] / bars["share_factor"]),
        }
    )


def _nodes(trees: Sequence) -> dict[str, np.ndarray]:
    """The nodes of scikit-learn's trees, one tree after the other."""
    first = np.cumsum([0, *(tree.node_count for tree in trees)])
    own = np.concatenate([np.arange(tree.node_count) for tree in trees])
    begin = np.repeat(first[:-1], np.diff(first))
    left, right, feature, threshold, n = (
        np.concatenate([getattr(tree, name) for tree in trees])
        for name in ("children_left", "children_right", "feature", "threshold", "n_node_samples")
    )
    leaf = left < 0
    left, right = (begin + np.where(leaf, own, child) for child in (left, right))
    above = np.zeros(len(left))
    for node in np.flatnonzero(~leaf):  # a node stands before those below it
        above[[left[node], right[node]]] = above[node] + 1
    return {
        "roots": first[:-1].astype("int32"),
        "feature": np.where(leaf, 0, feature).astype("int8"),
        "threshold": threshold,
        "left": left.astype("int32"),
        "right": right.astype("int32"),
        "path": above + _mean_path(n),
    }


def _mean_path(n: np.ndarray) -> np.ndarray:
    """c(n) of Liu, Ting & Zhou (2008): the mean path of an unsuccessful search in a tree of n."""
    n = n.astype("float64")
    many = np.maximum(n, 3)
    path = 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many
    return np.select([n <= 1, n == 2], [0.0, 1.0], path)
