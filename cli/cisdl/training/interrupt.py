"""Ctrl-C as a request: the step under way is finished, so what is saved is never half an update."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class InterruptRequest:
    """While entered, the first Ctrl-C sets `requested`; a second one raises KeyboardInterrupt at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: object = None

    def __enter__(self) -> InterruptRequest:
        # Python delivers signals to the main thread only and lets no other thread set handlers.
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
