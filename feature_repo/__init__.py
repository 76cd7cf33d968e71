"""Bars to features to Feast: the room the other rooms meet through."""

import os

# Several libraries phone home unless told not to before they are imported, so this is the one
# place where importing a package has an effect. A value the person has set themselves wins.
NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",  # Evidently and others that follow the convention
    "DVC_NO_ANALYTICS": "1",
    "FEAST_USAGE": "False",
    "LITDATA_DISABLE_VERSION_CHECK": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # not telemetry, but noise in every log
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
}
for _name, _value in NO_TELEMETRY.items():
    os.environ.setdefault(_name, _value)
