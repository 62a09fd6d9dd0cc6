"""`pagescan schema`: prints the JSON Schema of every output."""

from importlib.resources import files

import click

from pagescan.options import Common, common


@click.command(
    epilog="""\b
Example:
  pagescan schema > pagescan.schema.json"""
)
@common
def command(*, common: Common) -> None:
    """Print the JSON Schema that every JSON output follows."""
    del common
    click.echo(files("pagescan").joinpath("schema.json").read_text(), nl=False)
