"""`pagescan schema`: prints the JSON Schema of every output."""

from importlib.resources import files

import click

from pagescan.commands.options import common
from pagescan.console.context import Context
from pagescan.console.streams import put


@click.command(
    epilog="""\b
Example:
  pagescan schema > pagescan.schema.json"""
)
@common
def command(*, context: Context) -> None:
    """Print the JSON Schema that every JSON output follows."""
    del context
    put(files("pagescan").joinpath("schema.json").read_text().rstrip("\n"))
