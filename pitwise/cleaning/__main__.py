"""Stage `clean`: bars that can be trusted, and the rest to quarantine, each with its reason."""

import pandas as pd

from pitwise.cleaning.clean import CleanParams, clean
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace, read_parquet, write_json, write_parquet


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "clean", CleanParams)
    raw = read_parquet(workspace.raw_bars)
    # A third of the memory, which millions of bars need.
    with pd.option_context("mode.copy_on_write", True):
        bars, quarantine, events = clean(raw, params)
    write_parquet(bars, workspace.clean_bars)
    write_parquet(quarantine, workspace.quarantine)
    write_parquet(events, workspace.events)
    by_reason = quarantine["reason"].value_counts().sort_index()
    by_kind = events["kind"].value_counts().sort_index()
    write_json(
        {
            "rows_in": len(raw),
            "rows_clean": len(bars),
            "rows_quarantined": len(quarantine),
            "quarantined_by_reason": {str(r): int(n) for r, n in by_reason.items()},
            "events_by_kind": {str(k): int(n) for k, n in by_kind.items()},
            "symbols": int(bars["symbol"].nunique()),
            "sessions": int(bars["date"].nunique()),
            "first_session": f"{bars['date'].min():%Y-%m-%d}",
            "last_session": f"{bars['date'].max():%Y-%m-%d}",
        },
        workspace.clean_report,
    )
    print(f"{len(raw):,} rows in = {len(bars):,} clean + {len(quarantine):,} quarantined")


if __name__ == "__main__":
    run_stage(main)
