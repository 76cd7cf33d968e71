"""Point-in-time-wise forecasting of daily bars: data in, data out.

`pitwise.bars` reads them, `pitwise.cleaning` judges them, `pitwise.features` computes indicators and
windows, `pitwise.evaluation` measures forecasts, `pitwise.registry` holds the contract of a model and
which version is champion. Each takes and returns frames and arrays; files lie in a
`pitwise.workspace.Workspace`.
"""

import os
from importlib.metadata import PackageNotFoundError, version

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

try:
    __version__ = version("pitwise")
except PackageNotFoundError:  # a checkout on the path that nobody installed
    __version__ = "unknown"
