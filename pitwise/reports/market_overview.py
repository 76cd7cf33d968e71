"""Stage `overview`: a page of the market that the clean bars hold."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from scipy.stats import norm

from pitwise.bars.basis import on_last_basis
from pitwise.bars.returns import log_returns, returns
from pitwise.reports.page import (
    BLUE,
    ORANGE,
    PALE,
    Picture,
    Section,
    compact,
    dates_below,
    drawing,
    figure,
    legend_above,
    page,
    picture,
    plain,
)
from pitwise.stage import run_stage
from pitwise.workspace import Workspace, read_parquet, replacing

TREND = 50
"""Sessions of the moving average that breadth is measured against; the usual one."""
SMOOTH = 20
RANKED = 20
CORRELATED = 30
"""Symbols in the rankings and in the correlation matrix: as many names as can be read."""
NUMBERED = 12
"""Symbols up to which the matrix has room for its numbers."""
INK = ("black", "white")
"""Colour of a number on a pale and on a dark field."""
MIN_RETURNS = 20
"""Returns that a volatility or a correlation needs."""
YEAR = 252
"""Sessions in a year."""


def market(bars: pd.DataFrame) -> pd.DataFrame:
    """The market's figures of each session, by date.

    Returns:
        `index`: equal-weight, rebalanced daily, 100 at the first session; `volume`: shares;
        `above_trend`: share of the symbols that have a 50-session mean and close above it;
        `advancing`: share of the rises among the symbols that moved. Each NaN where there is none.
    """
    change = returns(bars)
    closes = bars.groupby(["symbol", "segment"])["close"]
    mean = closes.rolling(TREND).mean().droplevel(["symbol", "segment"]).reindex(bars.index)
    sessions = pd.DataFrame(
        {
            "date": bars["date"],
            "change": change,
            "volume": bars["volume"],
            "above": (bars["close"] > mean).where(mean.notna()).astype("float64"),
            "rose": (change > 0).where(change.notna() & (change != 0)).astype("float64"),
        }
    ).groupby("date")
    means = sessions[["change", "above", "rose"]].mean()
    return pd.DataFrame(
        {
            "index": 100 * (1 + means["change"].fillna(0)).cumprod(),
            "volume": sessions["volume"].sum(),
            "above_trend": means["above"],
            "advancing": means["rose"],
        }
    )


def by_symbol(bars: pd.DataFrame) -> pd.DataFrame:
    """Average daily `value` traded (US$), `volume` (shares), annual `volatility` (fraction)."""
    table = bars.assign(log_return=log_returns(bars), value=bars["close"] * bars["volume"]).groupby(
        "symbol"
    )
    enough = table["log_return"].count() >= MIN_RETURNS
    return pd.DataFrame(
        {
            "value": table["value"].mean(),
            "volume": table["volume"].mean(),
            "volatility": (table["log_return"].std() * np.sqrt(YEAR)).where(enough),
        }
    )


def correlations(bars: pd.DataFrame, symbols: pd.Index) -> pd.DataFrame:
    """Correlation of daily log returns, rows and columns ordered so that like stands by like.

    The order is average linkage on 1 - correlation; too few common returns count as 0 there.
    """
    chosen = bars[bars["symbol"].isin(symbols)]
    wide = chosen.assign(r=np.log1p(returns(chosen))).pivot(index="date", columns="symbol", values="r")
    matrix = wide.loc[:, wide.count() >= MIN_RETURNS].corr(min_periods=MIN_RETURNS)
    if len(matrix) < 2:
        return matrix
    distance = 1 - matrix.fillna(0).to_numpy(copy=True)
    np.fill_diagonal(distance, 0)
    order = leaves_list(linkage(squareform(distance, checks=False), "average", optimal_ordering=True))
    return matrix.iloc[order, order]


def _smoothed(values: pd.Series, unit: str, highest: float | None = None) -> Figure:
    """Values by session, pale, under their moving average."""
    drawn, axis = figure()
    axis.plot(values.index, values, color=PALE, lw=0.8, label="session")
    mean = values.rolling(SMOOTH, min_periods=1).mean()
    axis.plot(values.index, mean, color=BLUE, label=f"mean of {SMOOTH} sessions")
    axis.set(ylabel=unit, ylim=(0, highest))
    legend_above(axis)
    dates_below(axis)
    return drawn


def _over_time(sessions: pd.DataFrame) -> list[Picture]:
    index, axis = figure()
    axis.plot(sessions.index, sessions["index"], color=BLUE)
    axis.set(ylabel="first session = 100")
    dates_below(axis)
    return [
        picture(
            "Equal-weight index of all symbols, first session = 100",
            index,
            "Mean simple return of the symbols with a bar, compounded; none is taken across a break in "
            "a symbol's history. The symbols are the file's: where it lists today's members of an "
            "index, those that fell out are missing and the line is too high.",
        ),
        picture(
            "Shares traded by all symbols, billion a session",
            _smoothed(sessions["volume"] / 1e9, "billion shares"),
        ),
    ]


def _breadth(sessions: pd.DataFrame) -> list[Picture]:
    return [
        picture(
            f"Symbols above their {TREND}-session mean, % of those that have one",
            _smoothed(100 * sessions["above_trend"], "% of symbols", 100),
        ),
        picture(
            "Symbols that rose, % of those that moved",
            _smoothed(100 * sessions["advancing"], "% of symbols", 100),
        ),
    ]


def _distributions(bars: pd.DataFrame) -> list[Picture]:
    drawn = []
    for column, title, unit in (
        ("close", "Closes, US$ a share (log scale)", "US$"),
        ("volume", "Volumes, shares a session (log scale)", "shares"),
    ):
        values = bars.loc[bars[column] > 0, column]
        histogram, axis = figure(width=4)
        if len(values):
            axis.hist(
                values,
                bins=np.geomspace(values.min() / 1.01, values.max() * 1.01, 61).tolist(),
                color=BLUE,
            )
            axis.axvline(values.median(), color=ORANGE, label=f"median {compact(values.median())}")
            legend_above(axis)
        axis.set(xlabel=unit, ylabel="bars", xscale="log")
        plain(axis.xaxis)
        plain(axis.yaxis)
        drawn.append(picture(title, histogram, size="third"))
    daily = 100 * np.log1p(returns(bars).dropna())
    histogram, axis = figure(width=4)
    if len(daily):
        edges = np.linspace(-max(daily.abs().max(), 1), max(daily.abs().max(), 1), 121)
        axis.hist(daily, bins=edges.tolist(), color=BLUE)
        normal = len(daily) * np.diff(norm.cdf(edges, daily.mean(), max(daily.std(ddof=0), 1e-9)))
        axis.plot(
            (edges[1:] + edges[:-1]) / 2,
            np.where(normal > 0.5, normal, np.nan),
            color=ORANGE,
            label="normal of the same mean and deviation",
        )
        legend_above(axis)
    axis.set(xlabel="log return, %", ylabel="bars (log scale)", yscale="log")
    plain(axis.yaxis)
    drawn.append(picture("Daily log returns, % (log-scaled counts)", histogram, size="third"))
    return drawn


def _ranking(values: pd.Series, title: str, unit: str) -> Picture:
    top = values.dropna().nlargest(RANKED).iloc[::-1]
    bars, axis = figure(height=1 + 0.19 * max(len(top), 3), width=4)
    axis.barh(np.arange(len(top)), top, color=BLUE, height=0.65)
    axis.set_yticks(np.arange(len(top)), top.index.astype(str))
    axis.set(xlabel=unit)
    axis.xaxis.set_major_formatter("{x:,g}")
    axis.grid(visible=False, axis="y")
    of = f"{len(top)} of {len(values)} symbols" if len(top) < len(values) else "all symbols"
    return picture(f"{title} ({of})", bars, size="third")


def _correlation(bars: pd.DataFrame, most_traded: pd.Index) -> list[Picture]:
    matrix = correlations(bars, most_traded)
    if len(matrix) < 2:
        return []
    names = matrix.columns.astype(str)
    side = max(3.4, 1.2 + 0.2 * len(names))
    drawn, axis = figure(height=side, width=side + 1)
    image = axis.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    axis.set_xticks(np.arange(len(names)), names, rotation=90)
    axis.set_yticks(np.arange(len(names)), names)
    axis.grid(visible=False)
    if len(names) <= NUMBERED:
        for (row, column), value in np.ndenumerate(matrix):
            shown = "–" if np.isnan(value) else f"{value:.2f}"
            axis.text(column, row, shown, ha="center", va="center", color=INK[int(abs(value) > 0.6)])
    drawn.colorbar(image, ax=axis, shrink=0.6, label="correlation")
    title = f"Correlation of daily log returns, the {len(names)} most traded symbols, like beside like"
    return [picture(title, drawn, size="wide")]


@drawing()
def overview(bars: pd.DataFrame) -> str:
    """The page, from clean bars sorted by symbol and date."""
    sessions = market(bars)
    symbols = by_symbol(bars)
    low, high = bars.loc[bars["low"].idxmin()], bars.loc[bars["high"].idxmax()]
    together = _correlation(bars, symbols["value"].nlargest(CORRELATED).index)
    first, last = sessions.index[0], sessions.index[-1]
    facts = [
        ("Symbols", f"{len(symbols):,}"),
        ("Sessions", f"{len(sessions):,}"),
        ("First session", f"{first:%Y-%m-%d}"),
        ("Last session", f"{last:%Y-%m-%d}"),
        ("Bars", f"{len(bars):,}"),
        ("Average daily volume of a symbol", f"{compact(bars['volume'].mean())} shares"),
        ("Lowest price", f"${low['low']:,.2f} {low['symbol']}"),
        ("Highest price", f"${high['high']:,.2f} {high['symbol']}"),
    ]
    sections = [
        Section(
            "The market over time",
            "All symbols together, session by session.",
            pictures=_over_time(sessions),
        ),
        Section(
            "Breadth",
            "How many of the symbols take part in a move.",
            pictures=_breadth(sessions),
        ),
        Section(
            "Distributions",
            "One count a bar, over all symbols and sessions.",
            pictures=_distributions(bars),
        ),
        Section(
            "Most traded and most volatile",
            "Over the whole history of each symbol.",
            pictures=[
                _ranking(
                    symbols["value"] / 1e6,
                    "Average daily value traded, close × volume, million US$",
                    "million US$",
                ),
                _ranking(
                    symbols["volume"] / 1e6, "Average daily volume, million shares", "million shares"
                ),
                _ranking(
                    100 * symbols["volatility"],
                    "Volatility: deviation of daily log returns, % a year",
                    f"% a year (daily × √{YEAR})",
                ),
            ],
        ),
        Section(
            "Correlation",
            "Which symbols move together."
            if together
            else f"No two symbols have {MIN_RETURNS} returns to compare.",
            pictures=together,
        ),
    ]
    lead = (
        f"{len(symbols):,} symbols from {first:%Y-%m-%d} to {last:%Y-%m-%d}, clean bars. Prices "
        "are on the share basis of each symbol's last bar: an old one can differ from what it traded at."
    )
    return page("Market overview", lead, facts, sections)


def main(workspace: Workspace) -> None:
    bars = on_last_basis(read_parquet(workspace.clean_bars))
    with replacing(workspace.overview_page) as temporary:
        temporary.write_text(overview(bars))
    print(f"see {Workspace.overview_page}")


if __name__ == "__main__":
    run_stage(main)
