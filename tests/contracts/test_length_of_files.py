"""No Python file of the package is longer than 400 lines."""

from tests.conftest import HERE

LONGEST = 400


def test_no_longer_file() -> None:
    """A file with one job needs no more; a longer one has two."""
    package = HERE.parent / "pagescan"
    lengths = {
        str(path.relative_to(package)): len(path.read_text().splitlines())
        for path in package.rglob("*.py")
    }
    assert lengths
    assert {path for path, length in lengths.items() if length > LONGEST} == set()
