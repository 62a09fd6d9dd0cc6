"""`pagescan completion`: prints the completion script for a shell."""

import click

from pagescan.commands.options import common
from pagescan.commands.shells import completion_class
from pagescan.console.context import Context
from pagescan.console.streams import put


@click.command(
    epilog="""\b
Examples:
  eval "$(pagescan completion bash)"
  pagescan completion fish > ~/.config/fish/completions/pagescan.fish"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def command(*, shell: str, context: Context) -> None:
    """Print the completion script for SHELL."""
    del context
    group = click.get_current_context().find_root().command
    script = completion_class(shell)(group, {}, "pagescan", "_PAGESCAN_COMPLETE")
    put(script.source())
