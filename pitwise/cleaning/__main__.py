"""Stage `clean`: bars that can be trusted, and the rest to quarantine, each with its reason."""

import pandas as pd
import pyarrow as pa

from pitwise.bars.versions import known_actions, read_versions
from pitwise.cleaning.as_of import judged_bars, with_the_past
from pitwise.cleaning.clean import CLEAN_SCHEMA, Cleaned, CleanParams, cleaned_by_group, nothing_left
from pitwise.cleaning.cross_section import cross_section, tape, write_cross_section
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace, write_json, write_parquet


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "clean", CleanParams)
    # A third of the memory, which millions of bars need.
    with pd.option_context("mode.copy_on_write", True):
        versions = read_versions(workspace, encoded=True)
        pa.default_memory_pool().release_unused()  # what reading took, and pandas has copied
        judged = tape(versions)
        market = cross_section(judged if params.verdicts == "all" else judged.iloc[:0])
        del judged
        raw = judged_bars(versions)
        rows_in, symbols, sessions = len(raw), 0, set()
        tables, refused, found = [], [], []
        by_others = market if params.verdicts == "all" else None
        for part in cleaned_by_group(raw, params, by_others, actions=known_actions(versions)):
            CLEAN_SCHEMA.validate(part.bars, inplace=True)
            tables.append(pa.Table.from_pandas(part.bars, preserve_index=False))
            refused.append(part.quarantine)
            found.append(part.events)
            symbols += part.bars["symbol"].nunique()
            sessions.update(part.bars["date"].unique())
        del raw
        bars, quarantine = pa.concat_tables(tables), pd.concat(refused).sort_index()
        if not len(bars):
            raise nothing_left(quarantine, params)
        told = with_the_past(
            Cleaned(pd.DataFrame(), quarantine, pd.concat(found)), versions, by_others, params
        )
    events = told.cleaned.events
    write_parquet(bars, workspace.clean_bars)
    write_parquet(quarantine, workspace.quarantine)
    write_parquet(events, workspace.events)
    write_parquet(told.changes, workspace.changes)
    write_cross_section(workspace, market)
    by_reason = quarantine["reason"].value_counts().sort_index()
    standing = events[events["status"] != "withdrawn"]
    by_kind = standing["kind"].value_counts().sort_index()
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
