"""`pagescan completion`: prints the completion script for a shell."""

import click
from click.shell_completion import get_completion_class

from pagescan.commands.options import common
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
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    group = click.get_current_context().find_root().command
    script = kind(group, {}, "pagescan", "_PAGESCAN_COMPLETE")
    put(script.source())
