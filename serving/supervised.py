"""Threads that do one thing again and again, and do not die of an error."""

import logging
import threading
import time
from collections.abc import Callable

from pitwise.errors import one_line
from serving.state.market import PartStatus

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds from a failure to the next try; the pause doubles from the first to the longest."""
LOG = logging.getLogger("pitwise.serving")


class Loop:
    """A thread that calls `step` every `seconds`, the first time after the first pause.

    Whatever `step` raises is logged where it is another error than the last one, counted, shown in
    `status`, and tried again after a pause of 1 s that doubles to 30 s.
    """

    def __init__(self, name: str, seconds: float, step: Callable[[], object]):
        self.name = name
        self._seconds = seconds
        self._step = step
        self._ending, self._woken = threading.Event(), threading.Event()
        self._error, self._failures = "", 0
        self._stepping_since: float | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def status(self) -> PartStatus:
        """How it does. `at` is now, or where a step is under way its start: one that hangs grows old."""
        since = self._stepping_since
        error = self._error
        if self._thread.ident and not self._thread.is_alive():
            error = error or "has ended"
        return PartStatus(not error, error, self._failures, since or time.time())

    def start(self) -> "Loop":
        self._thread.start()
        return self

    def wake(self) -> None:
        """Have the next step begin now."""
        self._woken.set()

    def stop(self, timeout: float) -> bool:
        """End the thread after the step that is under way.

        Returns:
            whether it has ended within `timeout` seconds. Otherwise it ends with the process.
        """
        self._ending.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        if self._thread.is_alive():
            LOG.warning("%s: has not ended within %g s", self.name, timeout)
            return False
        return True

    def _run(self) -> None:
        pause = self._seconds
        retry = FIRST_PAUSE
        while True:
            self._woken.wait(pause)
            self._woken.clear()
            if self._ending.is_set():
                return
            self._stepping_since = time.time()
            try:
                self._step()
            except Exception as error:  # whatever it is: the thread goes on, and the error is seen
                self._failed(error)
                pause, retry = retry, min(retry * 2, LONGEST_PAUSE)
            else:
                if self._error:
                    LOG.info("%s: goes on", self.name)
                self._error = ""
                pause, retry = self._seconds, FIRST_PAUSE
            finally:
                self._stepping_since = None

    def _failed(self, error: Exception) -> None:
        said = f"{type(error).__name__}: {one_line(error)}"[:500]
        is_another = said != self._error
        self._error = said
        self._failures += 1
        if is_another:
            LOG.error("%s: %s", self.name, said, exc_info=error)
