"""The command `pitwise reconcile`: two sources, or a workspace against its reference."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.reconciliation import SIDES, TOLERANCE, by_session, by_symbol, dotted, reconciled
from pitwise.bars.schema import BAR_KEY
from pitwise.bars.sources.csv_files import csv_bars
from pitwise.bars.versions import known_bars, read_versions
from pitwise.cleaning.clean import TOO_LITTLE_HISTORY, CleanParams
from pitwise.errors import DataError, ParamsError
from pitwise.reports.reconciliation import WORST, reconciliation_page
from pitwise.stage import load_params
from pitwise.workspace import Workspace, read_parquet, replacing, write_json, write_parquet

PAGE = Path("reports/reconciliation.html")
REPORT = Path("metrics/reconciliation.json")
TABLE = Path("data/quality/reconciliation.parquet")


class Side(NamedTuple):
    """One of the two sources."""

    name: str
    """As it was given; of a workspace its folder."""
    bars: pd.DataFrame
    judged: pd.DataFrame | None
    """Of a workspace that has been cleaned: symbol, date and the `reason` for which a row was set aside,
    empty for a clean one."""
    known_at: pd.Timestamp | None
    """Of a workspace: the newest instant (UTC) at which one of its bars became known."""


def read_side(given: str | Path) -> Side:
    """A file or folder of prices as source csv reads it, or the known bars of a workspace.

    Raises:
        DataError: it is not there or cannot be read, or is a workspace whose bars have not been made.
    """
    path = Path(given).expanduser()
    if not path.exists():
        raise DataError(
            f"{given}: there is no such file or folder. Give a file or folder of prices (.csv, .csv.gz, "
            ".zip, .parquet) or a workspace."
        )
    if not (path / Workspace.params).is_file():
        return Side(str(given), csv_bars(path), None, None)
    workspace = Workspace(path)
    if not workspace.bar_versions.is_file():
        raise DataError(f"{given}: is a workspace without bars. `pitwise run` in it makes them.")
    bars = known_bars(read_versions(workspace))
    judged = None
    if workspace.clean_bars.is_file() and workspace.quarantine.is_file():
        kept = read_parquet(workspace.clean_bars, BAR_KEY).assign(reason="")
        aside = read_parquet(workspace.quarantine)[[*BAR_KEY, "reason"]].dropna(subset=BAR_KEY)
        judged = pd.concat([kept, aside], ignore_index=True).drop_duplicates(BAR_KEY)
    return Side(str(workspace.root), bars, judged, bars["known_at"].max())


def judged_by_the_other(bars: pd.DataFrame, judged: pd.DataFrame, side: str) -> pd.DataFrame:
    """What the other source says of a workspace's rows.

    Args:
        bars: as `Reconciled.bars`.
        judged: as `Side.judged`.
        side: a or b: which of the two the workspace is.

    Returns:
        the rows of `bars` that this side has, with `reason` ("" for a kept one) and `other`: confirmed
        (all prices agree), denied (they differ, by this side's fault), disputed (they differ, and whose
        fault it is is not known or is the other's) or absent (the other has no bar).
    """
    judged = judged.assign(symbol=dotted(judged["symbol"]), date=judged["date"].astype("datetime64[us]"))
    rows = bars[bars["status"] != f"only_{SIDES[1 - SIDES.index(side)]}"].merge(judged, on=BAR_KEY)
    said = np.select(
        [rows["status"] == "agree", rows["status"] == f"only_{side}", rows["fault"] == side],
        ["confirmed", "absent", "denied"],
        "disputed",
    )
    return rows.assign(other=said)


def reference_of(workspace: Workspace) -> Path | None:
    """The second source of a workspace, `clean.reference`; None where it has none.

    Raises:
        ParamsError: it is not there.
    """
    reference = load_params(workspace, "clean", CleanParams).reference
    if reference is None:
        return None
    path = workspace.path(reference)
    if not path.exists():
        raise ParamsError(f"{workspace.params}: clean.reference: {path} is not there.")
    return path


def reconcile(
    workspace: Workspace,
    a: str | Path | None = None,
    b: str | Path | None = None,
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:
    """Reconcile two sources, and write the page, the figures and the bars that do not agree.

    Args:
        workspace: where they are written.
        a, b: as `read_side` takes them; without both, the workspace's bars and its `clean.reference`.

    Returns:
        what `metrics/reconciliation.json` has.

    Raises:
        DataError: one of them cannot be read, or they have nothing in common.
        ParamsError: neither is given and no reference is set.
    """
    if a is None or b is None:
        reference = reference_of(workspace)
        if reference is None:
            raise ParamsError(
                "two sources are needed: `pitwise reconcile A B`. Or set clean.reference, in "
                "params.yaml: this workspace's bars are compared with it."
            )
        a, b = workspace.root, reference
    sides = {}
    for letter, given in zip(SIDES, (a, b), strict=True):
        begun = time.monotonic()
        sides[letter] = side = read_side(given)
        print(
            f"{letter.upper()}: {len(side.bars):,} rows of {side.bars['symbol'].nunique():,} symbols "
            f"from {side.name} ({time.monotonic() - begun:.1f} s)",
            flush=True,
        )
    begun = time.monotonic()
    found = reconciled(sides["a"].bars, sides["b"].bars, tolerance)
    judged = {
        letter: judged_by_the_other(found.bars, side.judged, letter)
        for letter, side in sides.items()
        if side.judged is not None
    }
    symbols, sessions = by_symbol(found.bars), by_session(found.bars)
    report = {
        "a": sides["a"].name,
        "b": sides["b"].name,
        **found.summary,
        "worst_symbols": _records(symbols[symbols["differ"] > 0].head(WORST)),
        "worst_sessions": _records(sessions[sessions["differ"] > 0].head(WORST)),
        "cleaning": {
            letter: {
                "set_aside": _said(
                    rows[(rows["reason"] != "") & (rows["reason"] != TOO_LITTLE_HISTORY)]
                ),
                "kept": _said(rows[rows["reason"] == ""]),
            }
            for letter, rows in judged.items()
        },
    }
    known = [side.known_at for side in sides.values() if side.known_at is not None]
    document = reconciliation_page(
        report, found.bars, found.steps, symbols, sessions, judged, max(known, default=None)
    )
    write_parquet(found.bars[found.bars["status"] != "agree"], workspace.root / TABLE)
    write_json(report, workspace.root / REPORT)
    with replacing(workspace.root / PAGE) as temporary:
        temporary.write_text(document)
    print(
        f"{report['both']:,} bars in both: {report['agree']:,} agree, {report['differ']:,} differ; "
        f"{report['only_a']:,} only in A, {report['only_b']:,} only in B; {report['ratio_steps']:,} "
        f"steps of the ratio ({time.monotonic() - begun:.1f} s); see {PAGE}",
        flush=True,
    )
    return report


def _said(rows: pd.DataFrame) -> dict[str, int]:
    counts = rows["other"].value_counts()
    return {name: int(counts.get(name, 0)) for name in ("confirmed", "denied", "disputed", "absent")}


def _records(counts: pd.DataFrame) -> list[dict]:
    if "date" in counts:
        counts = counts.assign(date=counts["date"].dt.strftime("%Y-%m-%d"))
    # A share of no bars is no number, and JSON has none for it.
    return counts.astype(object).where(counts.notna(), None).to_dict("records")
