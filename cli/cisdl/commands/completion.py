"""`cisdl completion bash|zsh|fish`."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from cisdl.commands import candidates
from cisdl.errors import UsageError, did_you_mean

SHELLS = ("bash", "zsh", "fish")


def known(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value not in SHELLS:
        raise UsageError(f"completion for '{value}' is not there; {did_you_mean(value, SHELLS)}")
    return value


def shells(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    return candidates.starting(typed, SHELLS)


@click.command()
@click.argument("shell", callback=known, metavar="bash|zsh|fish", shell_complete=shells)
def completion(shell: str) -> None:
    """Print the script that lets a shell complete commands, options, models, data, runs and bench cases.

    \b
    Where it goes, once (a new shell then knows it):
      bash   cisdl completion bash >> ~/.bashrc
      zsh    cisdl completion zsh >> ~/.zshrc        (after the line with compinit)
      fish   cisdl completion fish > ~/.config/fish/completions/cisdl.fish

    \b
    Example, for this shell alone:
      eval "$(cisdl completion bash)"
    """
    from click.shell_completion import get_completion_class

    from cisdl.__main__ import COMPLETE, cli

    kind = get_completion_class(shell)
    assert kind is not None
    print(kind(cli, {}, "cisdl", COMPLETE).source(), end="")
