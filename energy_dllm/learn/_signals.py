"""Ctrl-C and SIGTERM, put off until what would be lost is saved."""

import signal
import sys
import threading
from typing import Any


class Signals:
    """Ctrl-C and SIGTERM wait until `deliver`; a second one does at once what it did before."""

    def __init__(self):
        self.caught: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):
                    self.before[number] = handler
                    signal.signal(number, self._catch)
        return self

    def _catch(self, number, frame):
        self.caught = number
        self._restore()

    def _restore(self):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def deliver(self, message: str) -> None:
        """What the signal would have done."""
        assert self.caught is not None
        number, self.caught = self.caught, None
        handler = self.before[number]
        try:
            if callable(handler):
                handler(number, None)
            else:
                print(message, file=sys.stderr)
                signal.raise_signal(number)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(message) from None

    def __exit__(self, *_):
        self._restore()
        if self.caught is not None:  # on the way out
            self.deliver("stopped; to go on, run the same again")
