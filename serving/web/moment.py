"""As known at: the session whose close a page looks back from."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np


@dataclass(frozen=True)
class Moment:
    """What a page is of."""

    as_of: str | None
    """ISO 8601 day at whose end (UTC) it looks; None for now."""
    day: str
    """ISO 8601: the newest session then; `as_of` itself where none is known so early."""
    first: str
    """ISO 8601: the first session that can be looked at."""
    newest: str
    """ISO 8601: the newest of all."""
    before: str | None
    """The session before `day`, where there is one."""
    after: str | None
    """The one after, where the market has closed it by now."""

    @property
    def instant(self) -> int | None:
        """Its last microsecond, since 1970; None for now."""
        if self.as_of is None:
            return None
        end = datetime.fromisoformat(self.as_of).replace(tzinfo=UTC) + timedelta(days=1)
        return int(end.timestamp() * 1e6) - 1

    @property
    def query(self) -> str:
        """What links to other pages of the same moment end in."""
        return f"?as_of={self.as_of}" if self.as_of else ""


def moment(as_of: str | None, newest: str, sessions: np.ndarray) -> Moment:
    """A moment by what the address says.

    Args:
        newest: day of the market's newest session.
        sessions: datetime64[D], the days that the files have bars of, in order; may be empty.
    """
    days = sessions[sessions < np.datetime64(newest, "D")]
    days = np.append(days, np.datetime64(newest, "D"))
    at = len(days) - 1
    if as_of is not None:
        at = int(np.searchsorted(days, np.datetime64(as_of, "D"), side="right")) - 1
    day = as_of if as_of is not None and at < 0 else str(days[at])
    before = str(days[at - 1]) if at > 0 else None
    after = str(days[at + 1]) if at + 1 < len(days) else None
    return Moment(as_of, day, str(days[0]), newest, before, after)
