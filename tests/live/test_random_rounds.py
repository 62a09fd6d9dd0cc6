"""A heap of 512 MB, 20 rounds of random stores and reads: none missed, none extra."""

import json
import random
from collections.abc import Callable

import pytest

from tests import witness
from tests.conftest import Target, command, runs

PAGES = 512 << 20 >> 12
ROUNDS = 20


@pytest.mark.needs("tracking")
@pytest.mark.parametrize(
    "kind", ["anon", pytest.param("thp", marks=pytest.mark.needs("thp"))]
)
def test_rounds(
    kind: str,
    armed: Callable[..., Target],
    record_property: Callable[[str, object], None],
) -> None:
    """Each round's stores are found, according to the target and to pagemap."""
    made = armed(f"m={kind},pages={PAGES},fill=1")
    rolled = random.Random(kind)
    compared = 0
    for number in range(ROUNDS):
        pages = set(rolled.sample(range(PAGES), 3000))
        start = rolled.randrange(PAGES - 2000)
        pages |= set(range(start, start + 2000))
        made.write("m", pages)
        made.tell(f"read m {runs(set(rolled.sample(range(PAGES), 3000)))}")
        seen = witness.written(made.pid, *made.ranges["m"])
        result = command("diff", made.pid, "--rearm", "--json")
        # The schema takes seconds per document, so it checks one of them.
        look = json.loads(result.stdout) if number else result.json()
        found = made.pages(look, "m")
        assert (len(pages - found), len(found - pages)) == (0, 0)
        assert seen == found
        compared += PAGES
    record_property("pages compared", compared)
    print(kind, ROUNDS, "rounds:", compared, "pages compared")  # noqa: T201 - pytest -s
