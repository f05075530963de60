"""Ctrl-C and SIGTERM, while a command runs."""

import os
import signal
import sys
import threading
from typing import Any


class Interruptible:
    """Both raise `KeyboardInterrupt`; a second one ends the process at once. `end` is what then remains to be done.

    Python looks at signals between two of its instructions, and compiling is one that takes a minute: a thread counts
    them.
    """

    def __init__(self):
        self.caught: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            read, self.write = os.pipe()
            os.set_blocking(self.write, False)
            self.wakeup = signal.set_wakeup_fd(self.write, warn_on_full_buffer=False)
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self.before[number] = signal.signal(number, self._raise)
            threading.Thread(target=_second, args=(read,), daemon=True).start()
        return self

    def _raise(self, number, frame):
        self.caught = number
        raise KeyboardInterrupt

    def end(self) -> int:
        """The exit code. After a signal the process ends here: libraries that were stopped while they were imported may
        crash on the orderly way out."""
        if self.caught is None:
            return 130
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + self.caught)

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self.wakeup)
            os.close(self.write)


def _second(read: int) -> None:
    """End the process at the second signal that comes in."""
    count = 0
    while came := os.read(read, 1):
        count += came[0] in (signal.SIGINT, signal.SIGTERM)
        if count == 2:
            os._exit(128 + came[0])
    os.close(read)
