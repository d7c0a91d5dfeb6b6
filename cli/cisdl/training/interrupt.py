"""Ctrl-C as a request: the step under way is finished, so what is saved is never half an update."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from cisdl.training import processes


class InterruptRequest:
    """While entered, the first Ctrl-C sets `requested`; a second one raises KeyboardInterrupt at once.

    Of several processes, each is told by the one that started them, maybe more than once, with SIGINT or
    SIGTERM: all are that request, and who does not end is killed from there.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> InterruptRequest:
        # Python delivers signals to the main thread only and lets no other thread set handlers.
        if threading.current_thread() is threading.main_thread():
            signals = [signal.SIGINT] if processes.alone() else [signal.SIGINT, signal.SIGTERM]
            self._previous = {number: signal.signal(number, self._handle) for number in signals}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and processes.alone():
            raise KeyboardInterrupt
        self.requested = True
