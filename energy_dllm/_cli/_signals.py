"""Ctrl-C and SIGTERM, while a command runs."""

import os
import signal
import threading
from typing import Any


class Interruptible:
    """Both raise `KeyboardInterrupt`, `code` being the exit code of the last; a second one ends the process at once.

    Python looks at signals between two of its instructions, and compiling is one that takes a minute: a thread counts
    them.
    """

    def __init__(self):
        self.code = 130
        self.before: tuple[Any, int] | None = None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            read, self.write = os.pipe()
            os.set_blocking(self.write, False)
            wakeup = signal.set_wakeup_fd(self.write, warn_on_full_buffer=False)
            self.before = signal.signal(signal.SIGTERM, self._raise), wakeup
            threading.Thread(target=_second, args=(read,), daemon=True).start()
        return self

    def _raise(self, number, frame):
        self.code = 128 + number
        raise KeyboardInterrupt

    def __exit__(self, *_):
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before[0])
            signal.set_wakeup_fd(self.before[1])
            os.close(self.write)


def _second(read: int) -> None:
    """End the process at the second signal that comes in."""
    count = 0
    while came := os.read(read, 1):
        count += came[0] in (signal.SIGINT, signal.SIGTERM)
        if count == 2:
            os._exit(128 + came[0])
    os.close(read)
