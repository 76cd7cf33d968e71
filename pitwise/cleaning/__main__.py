"""Stage `clean`: bars that can be trusted, and the rest to quarantine, each with its reason."""

import pandas as pd
import pyarrow as pa

from pitwise.bars.versions import known_bars, read_versions, unsealed_sessions
from pitwise.cleaning.clean import CleanParams, cleaned_by_group, nothing_left
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace, write_json, write_parquet


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "clean", CleanParams)
    # A third of the memory, which millions of bars need.
    with pd.option_context("mode.copy_on_write", True):
        versions = read_versions(workspace, encoded=True)
        raw = known_bars(versions)
        unsealed = unsealed_sessions(raw, versions.seals)
        del versions
        rows_in, symbols, sessions = len(raw), 0, set()
        tables, refused, found = [], [], []
        for bars, quarantine, events in cleaned_by_group(raw, params, unsealed=unsealed):
            tables.append(pa.Table.from_pandas(bars, preserve_index=False))
            refused.append(quarantine)
            found.append(events)
            symbols += bars["symbol"].nunique()
            sessions.update(bars["date"].unique())
        del raw
    bars = pa.concat_tables(tables)
    quarantine = pd.concat(refused).sort_index()
    events = pd.concat(found)
    if not len(bars):
        raise nothing_left(quarantine, params)
    write_parquet(bars, workspace.clean_bars)
    write_parquet(quarantine, workspace.quarantine)
    write_parquet(events, workspace.events)
    by_reason = quarantine["reason"].value_counts().sort_index()
    by_kind = events["kind"].value_counts().sort_index()
    write_json(
        {
            "rows_in": rows_in,
            "rows_clean": len(bars),
            "rows_quarantined": len(quarantine),
            "quarantined_by_reason": {str(r): int(n) for r, n in by_reason.items()},
            "events_by_kind": {str(k): int(n) for k, n in by_kind.items()},
            "symbols": symbols,
            "sessions": len(sessions),
            "first_session": f"{min(sessions):%Y-%m-%d}",
            "last_session": f"{max(sessions):%Y-%m-%d}",
        },
        workspace.clean_report,
    )
    print(f"{rows_in:,} rows in = {len(bars):,} clean + {len(quarantine):,} quarantined")


if __name__ == "__main__":
    run_stage(main)
