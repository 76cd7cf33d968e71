"""The pictures of an evaluation. Each function takes tables and returns a figure."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pitwise.evaluation import metrics

COLOURS = {
    "gradient_boosting": "#1b9e77",
    "ann": "#1f77b4",
    "lstm": "#d95f02",
    "transformer": "#e7298a",
    "ensemble": "#7570b3",
}
GREY = "#777777"
SHOWN_SYMBOLS = 30


def _panels(n: int, width: float = 5.2, height: float = 4.0) -> tuple[Figure, list]:
    figure = Figure(figsize=(width * n, height), layout="constrained")
    axes = figure.subplots(1, n, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, list(axes)


def _shown(name: str) -> str:
    """The name of a kind or baseline as words."""
    words = name.replace("_", " ")
    return words.upper() if name in ("ann", "lstm") else words[0].upper() + words[1:]


def learning_curves(curves: dict[str, pd.DataFrame], fitted: dict[str, dict]) -> Figure:
    """Training and validation loss of each model over its batches."""
    figure, axes = _panels(len(curves))
    for axis, (kind, curve) in zip(axes, curves.items(), strict=True):
        axis.plot(curve["batches"], curve["train_loss"], color=GREY, label="training (with dropout)")
        axis.plot(curve["batches"], curve["validation_loss"], color=COLOURS[kind], label="validation")
        axis.axvline(fitted[kind]["best_after_batches"], color=GREY, ls=":", label="kept")
        axis.set(title=_shown(kind), xlabel="batches, or trees", ylabel="loss")
        axis.legend(frameon=False)
    return figure


def predicted_vs_actual(predictions: pd.DataFrame, kinds: Sequence[str], horizon: int) -> Figure:
    """Predicted against actual log return, as it is, beside the line of a perfect forecast."""
    of = "next session's return" if horizon == 1 else f"return over {horizon} sessions"
    figure, axes = _panels(len(kinds))
    actual = predictions["label"] * 100
    low, high = np.percentile(actual, [0.2, 99.8])
    for axis, kind in zip(axes, kinds, strict=True):
        predicted = predictions[f"{kind}_log_return"] * 100
        axis.hexbin(predicted, actual, gridsize=60, bins="log", cmap="Greys", mincnt=1, linewidths=0.1)
        axis.axline((0, 0), slope=1, color=COLOURS[kind], lw=1.2, label="perfect forecast")
        span = max(predicted.abs().quantile(0.999), 0.02) * 1.3
        axis.set(
            xlim=(-span, span),
            ylim=(low, high),
            title=f"{_shown(kind)}: {of}",
            xlabel="predicted, %",
            ylabel="actual, %",
        )
        axis.legend(frameon=False)
    return figure


def calibration(predictions: pd.DataFrame, kinds: Sequence[str], bins: int = 10) -> Figure:
    """Share of rises by the forecast probability, in bins of equal size."""
    figure, axes = _panels(len(kinds))
    for axis, kind in zip(axes, kinds, strict=True):
        p_up = predictions[f"{kind}_p_up"]
        rose = predictions["label"] > 0
        group = pd.qcut(p_up.rank(method="first"), min(bins, len(p_up)), labels=False)
        table = pd.DataFrame({"p_up": p_up, "rose": rose}).groupby(group).agg(["mean", "size"])
        share, size = table["rose", "mean"], table["rose", "size"]
        error = 1.96 * np.sqrt(share * (1 - share) / size)
        line = [p_up.min(), p_up.max()]
        axis.plot(line, line, color=GREY, lw=1, ls="--", label="perfectly calibrated")
        axis.errorbar(
            table["p_up", "mean"],
            share,
            yerr=error,
            fmt="o",
            color=COLOURS[kind],
            capsize=2,
            label="tenth of the forecasts, 95%",
        )
        axis.axhline(rose.mean(), color=GREY, lw=0.8, ls=":", label="share of rises in all")
        axis.set(title=f"{_shown(kind)}: calibration", xlabel="forecast p_up", ylabel="share that rose")
        axis.locator_params(axis="x", nbins=5)
        axis.legend(frameon=False)
    return figure


def cumulative_rank_ic(predictions: pd.DataFrame, kinds: Sequence[str], horizon: int) -> Figure:
    """Sum of the daily rank information coefficients: a steady climb is skill, a walk is noise."""
    figure, (axis,) = _panels(1, width=9)
    sessions = predictions["event_timestamp"].to_numpy()
    days = np.unique(sessions)
    for kind in kinds:
        scores = predictions[f"{kind}_score"].to_numpy()
        ic = metrics.rank_ic(scores, predictions["label"].to_numpy(), sessions)
        mean, t = metrics.mean_and_t(ic, horizon - 1)
        figures = (
            "no ranks to compare"
            if mean is None
            else f"mean {mean:+.4f}" + ("" if t is None else f", t {t:+.1f}")
        )
        axis.plot(
            days,
            np.nancumsum(ic),
            color=COLOURS.get(kind, GREY),
            label=f"{_shown(kind)}: {figures}",
        )
    axis.axhline(0, color="black", lw=0.8)
    axis.set(title="Cumulative rank IC over the test sessions", ylabel="sum of daily rank IC")
    axis.legend(frameon=False)
    return figure


def per_symbol_error(predictions: pd.DataFrame, kinds: Sequence[str]) -> Figure:
    """Error of persistence by symbol, and what each model adds to it; the largest if many."""
    actual = predictions["next_close"]
    forecasts = {
        kind: predictions["close"] * np.exp(predictions[f"{kind}_log_return"]) for kind in kinds
    }
    forecasts["persistence"] = predictions["close"]
    errors = pd.DataFrame({name: (f - actual).abs() / actual * 100 for name, f in forecasts.items()})
    by_symbol = errors.groupby(predictions["symbol"]).mean()
    shown = by_symbol.nlargest(SHOWN_SYMBOLS, "persistence").iloc[::-1]
    position = np.arange(len(shown))
    figure, (left, right) = _panels(2, height=1.6 + 0.24 * len(shown))
    left.barh(position, shown["persistence"], color=GREY, height=0.6)
    left.set_yticks(position, shown.index.astype(str))
    of = f" ({len(shown)} largest of {len(by_symbol)})" if len(shown) < len(by_symbol) else ""
    left.set(title=f"Error of persistence{of}", xlabel="mean absolute percentage error, %")
    for kind in kinds:
        added = (shown[kind] - shown["persistence"]) * 100
        right.plot(added, position, "o", ms=5, color=COLOURS[kind], label=_shown(kind))
    right.axvline(0, color="black", lw=0.8)
    right.set_yticks(position, [])
    right.set(title="What a model adds (left of 0 is better)", xlabel="hundredths of a percentage point")
    right.legend(frameon=False)
    return figure


def selection(ranking: list[dict], groups: list[dict], max_correlation: float) -> Figure:
    """Each candidate's correlation with the label, over all rows and session by session, its likeness to
    another of the chosen, and the groups' strength."""
    table = pd.DataFrame(ranking).iloc[::-1].reset_index(drop=True)
    figure, (left, middle, right, last) = _panels(4, height=1.6 + 0.24 * len(table))
    for chosen, colour, name in ((True, COLOURS["ann"], "chosen"), (False, "#cccccc", "left out")):
        shown = table[table["chosen"] == chosen]
        bars = {"color": colour, "height": 0.6, "zorder": 2}
        for axis, mean, t in ((left, "strength", "t"), (middle, "rank_ic_mean", "rank_ic_t")):
            value = shown[mean].astype(float)
            error = (1.96 * value / shown[t].astype(float)).abs().fillna(0)
            axis.barh(shown.index, value, xerr=error, ecolor="black", label=name, **bars)
        right.barh(shown.index, shown["nearest_correlation"].astype(float).abs(), **bars)
    stable = table[table["stable"]]
    middle.plot(stable["rank_ic_mean"].astype(float), stable.index, "k*", ms=9, label="stable", zorder=3)
    for axis in (left, middle):
        axis.axvline(0, color="black", lw=0.8)
        axis.set_yticks(table.index, table["feature"])
    left.set(title="Strength", xlabel="Spearman with the label over all rows, 95%")
    left.legend(frameon=False)
    middle.set(title="Strength by session", xlabel="mean rank IC of the sessions, 95%")
    middle.legend(frameon=False)
    right.axvline(max_correlation, color="black", lw=0.8, ls=":")
    right.set_yticks(table.index, table["nearest"].fillna(""))
    xlabel = f"absolute Spearman of the two (limit {max_correlation:g})"
    right.set(title="Most like it among the others chosen", xlabel=xlabel)
    by_group = pd.DataFrame(groups).iloc[::-1].reset_index(drop=True)
    for offset, column, colour, name in (
        (0.2, "strength", GREY, "over all rows"),
        (-0.2, "rank_ic", COLOURS["ann"], "by session"),
    ):
        last.barh(
            by_group.index + offset, by_group[column].astype(float), 0.35, color=colour, label=name
        )
    last.set_yticks(by_group.index, by_group["group"])
    last.set(title="Strength by group", xlabel="mean of the absolute values")
    last.legend(frameon=False)
    return figure
