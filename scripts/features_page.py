"""Write `docs/features.md` from the table of features. `python scripts/features_page.py`."""

from pathlib import Path

from pitwise.features.indicators import BARS, FEATURES, INDICATORS, PREDICTORS, SIGNALS, TAIL, Feature

PAGE = Path("docs/features.md")


def _table(features: tuple[Feature, ...]) -> str:
    rows = [f"| `{f.name}` | {f.text} | {f.unit.replace('_', ' ')} | {f.history} |" for f in features]
    return "\n".join(["| feature | what it is | unit | sessions needed |", "|---|---|---|---|", *rows])


def page() -> str:
    return f"""# The features

Made by `python scripts/features_page.py` from the table in `pitwise/features/indicators.py`, which the
Feast fields, the models' scaling and the tests are made from too. {len(FEATURES)} columns stand in both
feature views: `daily` has a field for each, `windows` the last 30 sessions of all in one field of bytes,
`window`: little-endian float32, sessions x features, oldest session first. The view's tag `features`
says their order.

A value is known at its `event_timestamp`: the session's close in UTC by the exchange's calendar, half
days included. It needs as many of the symbol's own sessions as the last column says, the day's own
included; before that it is missing. A history starts anew where a symbol's `segment` does: at a
spin-off that could not be adjusted, or where another company took the ticker. Once its history is met,
every value is finite: the table says what it is where nothing moves or nothing trades.

No feature looks at another symbol. A row is there as soon as its own bar is, whoever else has reported,
in the pipeline as in the service ([provisional](serving.md#live-bars) until the session is sealed).

The last {TAIL} sessions give the same latest values as the whole history: those of a window to the bit,
the exponential averages (RSI, MACD, ATR, ADX) to 1e-6 of their scale, the close or 100.

Prices are on the share basis of their own session. Where the source has an adjusted close, splits
and dividends are taken out of prices, splits out of volumes.

## The bar

{_table(BARS)}

## The indicators

{_table(INDICATORS)}

## Signals: trend, bands, range and volume

{_table(SIGNALS)}

## Predictors: what ranked returns in the literature

{_table(PREDICTORS)}

## Units, and how a model sees them

| unit | grows with | how it enters the model |
|---|---|---|
| price | the price level | logarithm of its ratio to the window's last close |
| price change | the price level | divided by the window's last close |
| shares | the number of shares | logarithm, less the window's mean logarithm |
| percent, ratio, index | neither | as it is |
| log | the dollars traded, of which it is the logarithm | as it is |

Each is then standardised with the training dates' mean and deviation and clipped at 5 deviations. All
of this happens inside the ONNX graph: what is looked up online goes in raw.

## What they are worth

Measured with boosted trees on the last session's values (100 trees, learning rate 0.04, 15 leaves, 2,000
rows a leaf, L2 50, half of the columns at a split), the label the rank within the session, fitted anew
each half year on all sessions before, six left out between. The S&P 500 file, the 502 sessions of 2016
and 2017: mean rank IC and its t, from close to close and from the next open to the one after.

| inputs | close | open |
|---|---|---|
| the bar, indicators and signals | +0.0172 (3.3) | +0.0106 (2.1) |
| with the predictors: all | +0.0270 (4.8) | +0.0167 (3.1) |
| the predictors, and eight of returns, range, volatility, volume | +0.0245 (4.2) | +0.0150 (2.8) |

What one group is worth: the difference that it makes to a set of 20 to 28 such columns, session by
session, with its t.

| change | close | open |
|---|---|---|
| without dollar volume and illiquidity | -0.0035 (-2.3) | -0.0029 (-2.0) |
| without momentum from 120 to 20 sessions back | -0.0036 (-1.7) | -0.0041 (-1.8) |
| that momentum from 252 sessions back in its place | -0.0033 (-0.9) | -0.0017 (-0.5) |
| without largest return and skewness | -0.0010 (-1.2) | -0.0002 (-0.2) |
| without returns of 40 and 60 sessions, and the high of 60 | -0.0002 (-0.1) | +0.0011 (0.7) |
| without volatility of 60 sessions and volume of 5 against 60 | -0.0004 (-0.3) | -0.0001 (-0.1) |
| without night's and day's returns summed over 5 and 20 sessions | -0.0003 (-0.2) | -0.0008 (-0.6) |

So the last three are not in the table. Neither is anything across the market; on top of all columns:

| change | close | open |
|---|---|---|
| return of the market, night, day, dispersion, breadth, volatility | -0.0050 (-1.2) | -0.0060 (-1.5) |
| beta of 60 sessions, and returns less beta times the market's | -0.0013 (-0.6) | +0.0006 (0.3) |
| returns, volatility and momentum less the market's | -0.0009 (-0.4) | -0.0015 (-0.8) |
| ranks within the session beside the values | +0.0006 (0.3) | -0.0002 (-0.1) |

None of these adds, so none is built: a value of the whole market would make each forecast wait for the
whole market. Size and momentum change slowly, and these two years were looked at often
([evidence](evidence.md)): the figures flatter.
"""


if __name__ == "__main__":
    PAGE.write_text(page())
