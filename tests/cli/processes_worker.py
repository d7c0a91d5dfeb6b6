"""Runs several `cisdl train` commands one after the other, alone or as one of torchrun's processes.

torchrun ... processes_worker.py COMMANDS.json

Each command is {"arguments": [...]}, with "interrupt_after": N as if Ctrl-C had reached the last process, and
no other, in the midst of that step. All of them are run in one process, for importing torch takes longer than
they do. The exit codes go to COMMANDS-<rank>.codes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import cisdl.report.plots
import cisdl.tasks.referee
import pytest
from cisdl.__main__ import cli
from cisdl.training import loop, processes
from cisdl.training.interrupt import InterruptRequest


def interrupted_after(steps: int) -> type[InterruptRequest]:
    class Request(InterruptRequest):
        asked = 0

        @property
        def requested(self) -> bool:
            self.asked += 1
            return processes.rank() == processes.world_size() - 1 and self.asked >= steps

        @requested.setter
        def requested(self, value: bool) -> None:
            pass

    return Request


def run(commands: list[dict[str, Any]]) -> list[int]:
    """Their exit codes."""
    codes = []
    for command in commands:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(cisdl.report.plots, "draw", lambda *_: None)
            patched.setattr(cisdl.tasks.referee, "STEPS", 2)
            if "interrupt_after" in command:
                patched.setattr(loop, "InterruptRequest", interrupted_after(command["interrupt_after"]))
            try:
                cli.main(command["arguments"], prog_name="cisdl")
            except SystemExit as stopped:
                codes.append(int(stopped.code or 0))
    return codes


def main() -> None:
    file = Path(sys.argv[1])
    codes = run(json.loads(file.read_text()))
    file.with_name(f"{file.stem}-{os.environ['RANK']}.codes").write_text(json.dumps(codes))


if __name__ == "__main__":
    main()
