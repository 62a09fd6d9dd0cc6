"""Which mapping a part was cut from, for many parts at once."""

import random

import pytest

from pagescan.model.mapping_set import whole_of, wholes_of
from pagescan.model.memory import Mapping


def mapping(start: int, end: int) -> Mapping:
    return Mapping(start, end, "rw-p", 0, (0, 0), 0, "")


@pytest.mark.parametrize("seed", range(20))
def test_as_one_by_one(seed: int) -> None:
    """Whole mappings and parts, some left out, in any order."""
    rng = random.Random(seed)
    mappings, end = [], 0
    for _ in range(50):
        start = end + rng.choice([0, 0, 10])
        end = start + rng.randrange(1, 9)
        mappings.append(mapping(start, end))
    parts = []
    for one in mappings:
        first = rng.randrange(one.start, one.end)
        last = rng.randrange(first + 1, one.end + 1)
        parts += rng.choice([[one], [one], [mapping(first, last)], []])
    if seed % 4 == 0:
        rng.shuffle(parts)
    found = list(wholes_of(parts, mappings))
    assert found == [whole_of(part, mappings) for part in parts]
    assert all(
        whole.start <= part.start and part.end <= whole.end
        for whole, part in zip(found, parts, strict=True)
    )
