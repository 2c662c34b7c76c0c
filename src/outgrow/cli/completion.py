"""`outgrow completion`: the script that teaches a shell to complete the command."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from outgrow.cli import options
from outgrow.cli.console import Console
from outgrow.cli.formatting import Command
from outgrow.errors import Misuse

INSTALL = {
    "bash": 'eval "$(outgrow completion bash)"                                          # in ~/.bashrc',
    "zsh": 'eval "$(outgrow completion zsh)"                                           # in ~/.zshrc',
    "fish": "outgrow completion fish > ~/.config/fish/completions/outgrow.fish",
}


@click.command(cls=Command, epilog="\b\n" + "\n".join(INSTALL.values()))
@click.argument("shell", type=click.Choice(list(INSTALL)))
@options.as_json
def command(shell: str, as_json: bool) -> None:
    """Print the completion script of SHELL. Commands, options, stages and running nodes complete.

    To have it in every new shell:
    """
    script = _script(shell)
    Console(as_json=as_json).result({"shell": shell, "script": script}, script.rstrip())


def _script(shell: str) -> str:
    kind = get_completion_class(shell)
    assert kind is not None, "click carries all of INSTALL"
    try:
        return kind(
            click.get_current_context().find_root().command, {}, "outgrow", "_OUTGROW_COMPLETE"
        ).source()
    except RuntimeError as error:  # click asks bash for its version
        raise Misuse(f"no completion for this {shell}: {error}") from error
