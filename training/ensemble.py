"""Stage `ensemble`: models of the run as one. `python -m training.ensemble`."""

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from pitwise.errors import DataError
from pitwise.evaluation.sessions import PARTS, SESSION
from pitwise.features.daily import FACTORS
from pitwise.features.history import KEYS
from pitwise.features.indicators import NAMES
from pitwise.features.served import ENDS, ServedWindows
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Workspace, read_json, read_parquet, sha256, write_json
from training import ENSEMBLE, KINDS
from training.models.ensemble import Answers, Member, combine, write_ensemble
from training.recipes import code_of, identity, recipe_of

OF_MEMBERS = (
    "window",
    "horizon",
    "train_windows",
    "validation_windows",
    "train_first_session",
    "train_last_session",
    "fitted_last_session",
    "rows_sha256",
    "served_sha256",
)
"""Of `training.json`: what all models of a run have in common."""


class EnsembleParams(Params):
    members: tuple[str, ...] = Field(min_length=2)

    @field_validator("members")
    @classmethod
    def _known(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        if set(members) - set(KINDS) or len(set(members)) < len(members):
            raise ValueError(f"should be some of {', '.join(KINDS)}, each once")
        return members


def recipe_of_ensemble(workspace: Workspace) -> str:
    """Its members' recipes and how they are put together; see `training.recipes`."""
    members = load_params(workspace, "ensemble", EnsembleParams).members
    return identity(
        kind=ENSEMBLE,
        members={kind: recipe_of(workspace, kind) for kind in members},
        code=code_of(("training/ensemble.py",)),
    )


def ensemble_forecast(members: list[pd.DataFrame]) -> pd.DataFrame:
    """The ensemble's forecast in a fold of the walk-forward, of those of its members.

    It is put together on the validation sessions of the newest fit. A member whose fit is older may have
    forecast some of them already; no label is asked.

    Args:
        members: see `folds.forecast_fold`.

    Returns:
        `symbol`, `event_timestamp`, `score`, `log_return`, `p_up`, of what all members forecast.

    Raises:
        DataError: there is no session to put it together on.
    """
    held = [said.loc[said["split"] == "validation", SESSION] for said in members]
    newest = max(range(len(members)), key=lambda i: held[i].max())

    def answers(sessions: pd.Series) -> tuple[pd.DataFrame, Answers]:
        parts = [said[said[SESSION].isin(sessions)].set_index(KEYS) for said in members]
        keys = pd.concat([part[[]] for part in parts], axis=1, join="inner").index
        said = [np.stack([part.loc[keys, of] for part in parts], axis=1) for of in Answers._fields]
        return keys.to_frame(index=False), Answers(*said)

    _, known = answers(held[newest])
    if len(known.score) == 0:
        raise DataError(
            "the members of the ensemble share no validation session in a fold. Choose a larger "
            "walk_forward.validation_fraction, or the same step for all of them in walk_forward.kinds."
        )
    test = members[newest].loc[members[newest]["split"] == "test", SESSION]
    keys, said = answers(test)
    return keys.assign(**combine(known).forecast(said))[[*KEYS, *PARTS]]


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "ensemble", EnsembleParams)
    fits = {kind: read_json(workspace.models / kind / "training.json") for kind in params.members}
    members = [
        Member(kind, workspace.models / kind / "model.onnx", fit["features"])
        for kind, fit in fits.items()
    ]
    features = [name for name in NAMES if any(name in fit["features"] for fit in fits.values())]
    rows = read_parquet(workspace.dataset_rows, [*KEYS, *features, *FACTORS, ENDS, "split"])
    windows = ServedWindows(rows, read_parquet(workspace.served_rows), features)
    validation = np.flatnonzero(rows["split"] == "validation")
    first = next(iter(fits.values()))
    path = workspace.models / ENSEMBLE / "model.onnx"
    difference = write_ensemble(members, features, windows, validation, first["window"], path)
    write_json(
        {
            "kind": ENSEMBLE,
            "recipe": recipe_of_ensemble(workspace),
            "features": features,
            **{key: first[key] for key in OF_MEMBERS},
            "params": {
                "seed": first["params"]["seed"],
                "members": list(fits),
                **{f"recipe_of_{kind}": fit["recipe"] for kind, fit in fits.items()},
            },
            "parameters": sum(fit["parameters"] for fit in fits.values()),
            # Its own would be too good: the trees have seen the validation dates by now.
            "best_validation_loss": float(
                np.mean([fit["best_validation_loss"] for fit in fits.values()])
            ),
            "onnx_parity": float(np.max([difference, *(fit["onnx_parity"] for fit in fits.values())])),
            "onnx_sha256": sha256(path),
        },
        path.with_name("training.json"),
    )
    print(f"{ENSEMBLE} of {', '.join(fits)}: ONNX differs by {difference:.1e}")


if __name__ == "__main__":
    run_stage(main)
