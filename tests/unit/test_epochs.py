"""The epochs of a session, without a process: parents, and pages no image may lack."""

from array import array

from hypothesis import given, strategies as st

from pagescan.native import Columns
from pagescan.session.epochs import UNKNOWN, Epochs

PAGE = 4096


def regions(*pages: int) -> Columns:
    """Return one region per page."""
    return Columns(
        array("Q", [page * PAGE for page in sorted(pages)]),
        array("Q", [(page + 1) * PAGE for page in sorted(pages)]),
        array("Q", bytes(8 * len(pages))),
    )


def pages(found: Columns | None) -> set[int] | None:
    """Return the pages of a list; None: the list is unknown."""
    if found is None:
        return None
    rows = zip(found.starts, found.ends, strict=True)
    return {page for low, high in rows for page in range(low // PAGE, high // PAGE)}


def planned(epochs: Epochs, image: int, written: Columns) -> Epochs:
    """Return the epochs after a plan on top of an image."""
    return epochs.next_plan(image).rearmed(epochs.epoch + 1, written, planned=True)


def test_the_first_plan_is_complete() -> None:
    base = Epochs(epoch=0).next_plan(0)
    assert (base.acknowledged, pages(base.unsaved)) == (0, set())


def test_a_plan_on_an_image_knows_no_more_than_that_image() -> None:
    """Nothing was re-protected since the plan of that image: nothing is unsaved."""
    first = planned(Epochs(0), 0, regions(1, 2, 3))
    assert (first.epoch, first.planned, first.acknowledged) == (1, 1, 0)
    base = first.next_plan(1)
    assert (base.acknowledged, pages(base.unsaved)) == (1, set())


def test_an_image_that_was_never_stored_loses_nothing() -> None:
    """The second plan has the parent 1 again: its pages are in the third plan too."""
    first = planned(Epochs(0), 0, regions(1, 2, 3))
    second = planned(first, 1, regions(2))
    third = second.next_plan(1)
    assert (third.acknowledged, pages(third.unsaved)) == (1, {2})
    assert pages(second.next_plan(2).unsaved) == set()


def test_a_rearm_between_two_plans_is_unsaved() -> None:
    """`diff --rearm` re-protects pages, which the last image may lack."""
    first = planned(Epochs(0), 0, regions(1, 2, 3)).acknowledge(1)
    rearmed = first.rearmed(2, regions(3))
    assert (rearmed.epoch, rearmed.planned, rearmed.acknowledged) == (2, 1, 1)
    assert pages(rearmed.next_plan(1).unsaved) == {3}


def test_an_older_image_is_no_parent() -> None:
    """The pages between an older image and the acknowledged one are forgotten."""
    epochs = planned(planned(Epochs(0), 0, regions(1)), 1, regions(2)).acknowledge(2)
    assert epochs.acknowledge(1) is epochs
    base = epochs.next_plan(1)
    assert (base.acknowledged, pages(base.unsaved)) == (0, set())


def test_no_image_can_be_built_on_once_pages_are_forgotten() -> None:
    epochs = planned(Epochs(0), 0, regions(1)).forgotten()
    assert epochs.acknowledged == UNKNOWN
    assert epochs.acknowledge(1) is epochs
    assert epochs.next_plan(1).acknowledged == 0
    later = epochs.rearmed(2, regions(5))
    assert (later.acknowledged, later.unsaved) == (UNKNOWN, None)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["plan", "rearm", "acknowledge"]),
        st.integers(0, 12),
        st.frozensets(st.integers(0, 9), max_size=4),
    ),
    max_size=12,
)


@given(STEPS)
def test_no_page_is_lost_between_an_image_and_the_plan_on_top(
    steps: list[tuple[str, int, frozenset[int]]],
) -> None:
    """A model remembers the pages written at each epoch; each plan has all of them.

    A plan must have the pages written after the parent's epoch.
    """
    epochs = Epochs(0)
    written: dict[int, frozenset[int]] = {}
    for step, wish, stores in steps:
        image = min(wish, epochs.planned)
        if step == "acknowledge":
            epochs = epochs.acknowledge(image) if image else epochs
            continue
        number = epochs.epoch + 1
        written[number] = stores
        if step == "rearm":
            epochs = epochs.rearmed(number, regions(*stores))
            continue
        base = epochs.next_plan(image)
        assert base.acknowledged in (0, image)
        dumped = (pages(base.unsaved) or set()) | stores
        protected = stores
        if base.acknowledged:
            since = range(base.acknowledged + 1, number + 1)
            assert dumped >= {page for at in since for page in written[at]}
        else:
            protected = frozenset(range(10))  # a complete plan has every page
        epochs = base.rearmed(number, regions(*protected), planned=True)
