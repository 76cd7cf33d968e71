"""Who is told of a week that is not ok."""

import json
import shlex
import subprocess
import urllib.error
import urllib.request
from typing import Any

from pitwise.errors import StoreError, one_line

SECONDS = 30
TOLD = ("week", "verdict", "reason", "todo", "model_version", "findings")
"""Of the week's document."""


def alert(target: str, document: dict[str, Any], page: str) -> None:
    """Tell of a week: a URL is posted JSON, a command reads it from its standard input.

    Args:
        target: http:// or https:// and the rest of a URL, or a command with its arguments.
        page: where the week's page is.

    Raises:
        StoreError: nobody was told.
    """
    text = json.dumps({name: document[name] for name in TOLD} | {"page": page}).encode()
    try:
        if target.startswith(("http://", "https://")):
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(target, text, headers, method="POST")
            with urllib.request.urlopen(request, timeout=SECONDS):
                return
        subprocess.run(shlex.split(target), input=text, check=True, timeout=SECONDS, capture_output=True)
    except (OSError, ValueError, urllib.error.URLError, subprocess.SubprocessError) as error:
        # No URL in the message: it may hold a secret.
        reason = one_line(getattr(error, "reason", None) or type(error).__name__)
        raise StoreError(
            f"monitor.alert: nobody was told of {document['week']} ({document['verdict']}): {reason}. "
            "The report is written."
        ) from error
