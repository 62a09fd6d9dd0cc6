"""Errors for packages that are not installed, with the command that installs them.

The command depends on how pagescan itself was installed: from a clone, a file, an
index. It reads files only when a package is missing.
"""

import json
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pagescan.model.errors import PagescanError

HERE = Path(__file__).resolve()
_SINGLE_FILE = "the single file has no extras: README tells the other ways to install"


def lacking(what: str, package: str, extra: str) -> PagescanError:
    """Return the error that something needs a package of an extra."""
    return PagescanError(
        f"{what} needs {package}, which is not installed", hint=install_command(extra)
    )


def install_command(extra: str) -> str:
    """Return the command that adds an extra to this installation of pagescan."""
    if ".shiv" in HERE.parts:
        return _SINGLE_FILE
    return f"{pip()} install {_source(extra)}"


def pip() -> str:
    """Return the pip of this Python, as a user in this folder may call it."""
    beside = Path(sys.executable).with_name("pip")
    if not beside.exists():
        return "pip" if sys.prefix == sys.base_prefix else f"{sys.executable} -m pip"
    found = shutil.which("pip")
    if found is not None and Path(found) == beside:
        return "pip"
    here = Path.cwd()
    return str(beside.relative_to(here) if beside.is_relative_to(here) else beside)


def _source(extra: str) -> str:
    """Return the requirement, in quotes, from where pagescan came."""
    clone = HERE.parents[2]
    if (clone / "pyproject.toml").exists():
        return f"-e '{'.' if clone == Path.cwd() else clone}[{extra}]'"
    url = source_url()
    folder = Path(unquote(urlsplit(url).path))
    if url.startswith("file:") and folder.is_dir():
        return f"'{folder}[{extra}]'"
    return f"'pagescan[{extra}] @ {url}'" if url else f"'pagescan[{extra}]'"


def source_url() -> str:
    """Return the address from which pip installed pagescan; "": an index."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        text = distribution("pagescan").read_text("direct_url.json")
    except PackageNotFoundError:
        return ""
    return str(json.loads(text)["url"]) if text else ""
