"""Runs several `cisdl` commands one after the other, alone or as one of torchrun's processes; not by pytest.

[torchrun ...] processes_worker.py COMMANDS.json

Each command is {"arguments": [...]}, with "interrupt_after": N as if Ctrl-C had reached the last process, and
no other, in the midst of that step. All of them are run in one process, for importing torch takes longer than
they do. The exit codes go to <COMMANDS>-<rank>.codes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import cisdl.report.plots
import cisdl.tasks.referee
from cisdl.__main__ import cli
from cisdl.training import loop
from cisdl.training.interrupt import InterruptRequest

RANK, WORLD = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))


def interrupted_after(steps: int) -> type[InterruptRequest]:
    class Request(InterruptRequest):
        asked = 0

        @property
        def requested(self) -> bool:
            self.asked += 1
            return RANK == WORLD - 1 and self.asked >= steps

        @requested.setter
        def requested(self, value: bool) -> None:
            pass

    return Request


def run(command: dict[str, Any]) -> int:
    steps = command.get("interrupt_after")
    loop.InterruptRequest = interrupted_after(steps) if steps else InterruptRequest
    try:
        cli.main(command["arguments"], prog_name="cisdl")
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def main() -> None:
    commands = Path(sys.argv[1])
    cisdl.report.plots.draw = lambda *_: None
    cisdl.tasks.referee.STEPS = 2
    codes = [run(command) for command in json.loads(commands.read_text())]
    commands.with_name(f"{commands.stem}-{RANK}.codes").write_text(json.dumps(codes))


if __name__ == "__main__":
    main()
