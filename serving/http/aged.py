"""Forecasts with the age of the features that they stand on, and what is known of their last bar."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from serving.inference.freshness import Session, sessions_at
from serving.inference.marks import Marks
from serving.inference.predictor import Forecasts


@dataclass(frozen=True)
class Aged:
    """Forecasts, how old each is, and its marks."""

    forecasts: Forecasts
    sessions: list[Session]
    """The last session that each forecast has seen."""
    ages: list[int]
    """Sessions that its window does not have: those since its last one, and those missing in it."""
    provisional: list[bool]
    """Whether the last session is not sealed yet."""
    unusual: list[bool | None]
    """Whether the last session's bar is flagged; None where it is not known."""
    suspect: list[str | None]
    """Kind of a provisional verdict on one of the symbol's newest bars."""

    def rows(self, chosen: Sequence[int]) -> "Aged":
        """These rows, in this order; of the symbols that are missing all."""
        if list(chosen) == list(range(len(self.ages))):
            return self
        arrays = ("as_of", "last_close", "log_return", "price", "p_up")
        forecasts = replace(
            self.forecasts,
            symbols=[self.forecasts.symbols[i] for i in chosen],
            window_hash=[self.forecasts.window_hash[i] for i in chosen],
            **{name: getattr(self.forecasts, name)[list(chosen)] for name in arrays},
        )
        return Aged(
            forecasts,
            [self.sessions[i] for i in chosen],
            [self.ages[i] for i in chosen],
            [self.provisional[i] for i in chosen],
            [self.unusual[i] for i in chosen],
            [self.suspect[i] for i in chosen],
        )

    def documents(self) -> list[dict[str, Any]]:
        """`serving.http.schemas.Forecast` of each row."""
        forecasts = self.forecasts
        columns = {
            "symbol": forecasts.symbols,
            "as_of": [session.as_of for session in self.sessions],
            "for_session": [session.next for session in self.sessions],
            "last_close": forecasts.last_close.tolist(),
            "price": forecasts.price.tolist(),
            "log_return": forecasts.log_return.tolist(),
            "p_up": forecasts.p_up.tolist(),
            "feature_age_sessions": self.ages,
            "provisional": self.provisional,
            "unusual": self.unusual,
            "suspect": self.suspect,
        }
        rows = zip(*columns.values(), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]


def aged(
    forecasts: Forecasts,
    newest: int,
    missing: Mapping[str, int],
    sealed: np.datetime64,
    marks: Marks,
) -> Aged:
    """Forecasts with their ages and marks.

    Args:
        newest: number of the session that ages count from. A window that reaches beyond it is as old as
            the sessions that it leaves out.
        missing: symbol to the sessions that its newest window leaves out, 0 where it is not named.
        sealed: close of the newest sealed session, UTC.
    """
    sessions = sessions_at(forecasts.as_of)
    ages = [
        max(newest - session.number, 0) + missing.get(symbol, 0)
        for symbol, session in zip(forecasts.symbols, sessions, strict=True)
    ]
    return Aged(
        forecasts,
        sessions,
        ages,
        (forecasts.as_of > sealed).tolist(),
        marks.unusual_at(forecasts.symbols, forecasts.as_of),
        marks.suspected(forecasts.symbols),
    )
