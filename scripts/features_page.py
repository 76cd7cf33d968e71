"""Write `docs/features.md` from the table of features. `python scripts/features_page.py`."""

from pathlib import Path

from pitwise.features.indicators import BARS, FEATURES, INDICATORS, SIGNALS, TAIL, Feature

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

## Units, and how a model sees them

| unit | grows with | how it enters the model |
|---|---|---|
| price | the price level | logarithm of its ratio to the window's last close |
| price change | the price level | divided by the window's last close |
| shares | the number of shares | logarithm, less the window's mean logarithm |
| percent, ratio, index | neither | as it is |

Each is then standardised with the training dates' mean and deviation and clipped at 8 deviations. All
of this happens inside the ONNX graph: what is looked up online goes in raw.
"""


if __name__ == "__main__":
    PAGE.write_text(page())
