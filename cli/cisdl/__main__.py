"""The command `cisdl`, also `python -m cisdl`.

Subcommands are imported when they are called, so that help and mistakes cost no import of torch.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click
from click.shell_completion import CompletionItem

from cisdl import __version__, errors
from cisdl.errors import CisdlError, did_you_mean

COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("cisdl.commands.train:train", "Train a model and leave its results in a run folder."),
    "eval": ("cisdl.commands.eval:evaluate", "Judge a run on its test part, or on other data."),
    "predict": ("cisdl.commands.predict:predict", "Ask a run about texts or images."),
    "sample": ("cisdl.commands.sample:sample", "Let a run make new texts or images."),
    "query": ("cisdl.commands.query:query", "Ask a run's word vectors for neighbours and analogies."),
    "report": ("cisdl.commands.report:report", "Write one HTML page of a run, or of several side by side."),
    "bench": ("cisdl.commands.bench:bench", "Time our kernels and models against torch's, verified first."),
    "check": ("cisdl.commands.check:check", "Compare every kernel with its plain reference."),
    "data": ("cisdl.commands.data:data", "Bring public data sets, and check those that are there."),
    "ls": ("cisdl.commands.ls:ls", "List models, data sets, runs or kernels."),
    "show": ("cisdl.commands.show:show", "Show a model's layers, or what a run did."),
    "completion": ("cisdl.commands.completion:completion", "Let bash, zsh or fish complete this command."),
    "env": ("cisdl.commands.env:env", "Describe this machine and mend what is missing on it."),
}
"""name -> (module:attribute, the line that `cisdl --help` prints)"""
COMPLETE = "_CISDL_COMPLETE"
"""Set by the scripts of `cisdl completion` when Tab is pressed."""


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is used, and words every failure as one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        named = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items()]
        return [item for item in named if item.value.startswith(incomplete)] + click.Command.shell_complete(
            self, ctx, incomplete
        )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise errors.UsageError(f"unknown command '{args[0]}'; {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, print at most one sentence about what went wrong, and exit with its code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode, **extra)
        sys.exit(self._run(args, prog_name, complete_var, **extra))

    def _run(
        self, args: Sequence[str] | None, prog_name: str | None, complete_var: str | None, **extra: Any
    ) -> int:
        if COMPLETE in os.environ:
            # A word that cannot be completed must not write over what is being typed.
            with suppress(Exception):
                super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            return errors.OK
        arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
        try:
            code = super().main(
                arguments, prog_name, complete_var, standalone_mode=False, obj=arguments, **extra
            )
            sys.stdout.flush()
            return code if isinstance(code, int) else errors.OK
        except CisdlError as error:
            return complain(str(error), error.exit_code)
        except click.ClickException as error:
            return complain(sentence(error), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            return complain("interrupted; nothing was saved", errors.INTERRUPTED)
        except BrokenPipeError:
            # The reader (`head`, a pager) has seen enough; nothing of ours may be written at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return errors.RUNTIME
        except Exception as error:
            if os.environ.get("CISDL_TRACEBACK"):
                raise
            if several_processes():
                from cisdl.training import processes

                if processes.is_loss_of_another(error):
                    return processes.failed(errors.RUNTIME)[0]  # why it ended is said by it or for it
            what = f"internal error, {type(error).__name__}: {' '.join(str(error).split())}"
            return complain(f"{what} (CISDL_TRACEBACK=1 shows where)", errors.RUNTIME)


def complain(text: str, code: int) -> int:
    """Say what went wrong, once of all processes, and return the exit code."""
    if several_processes():
        from cisdl.training import processes

        code, speaks = processes.failed(code)
        if not speaks:
            return code
    click.echo(f"cisdl: {text}", err=True)
    return code


def several_processes() -> bool:
    """Whether this is one of several processes that torchrun started."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def sentence(error: click.ClickException) -> str:
    """Click's own complaint on one line, with the place to look."""
    text = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "cisdl"
    return f"{text[:1].lower()}{text[1:]} (see `{where} --help`)"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cisdl")
def cli() -> None:
    """Train, check and time course models on hand-written neural-network kernels.

    \b
    Examples:
      cisdl train lenet                     LeNet on the bundled digits, about half a minute
      cisdl train mlp --backend torch       the same training on torch's own ops
      cisdl bench 'conv2d*'                 our convolutions against torch's
      cisdl env                             what this machine has, and what is missing
    """


def main() -> None:
    cli(prog_name="cisdl")


if __name__ == "__main__":
    main()
