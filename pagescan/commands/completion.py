"""`pagescan completion`: prints the completion script for a shell."""

import click
from click.shell_completion import get_completion_class

from pagescan.commands.options import Common, common
from pagescan.commands.streams import put


@click.command(
    epilog="""\b
Examples:
  eval "$(pagescan completion bash)"
  pagescan completion fish > ~/.config/fish/completions/pagescan.fish"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def command(*, shell: str, common: Common) -> None:
    """Print the completion script for SHELL."""
    del common
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    context = click.get_current_context()
    script = kind(context.find_root().command, {}, "pagescan", "_PAGESCAN_COMPLETE")
    put(script.source())
