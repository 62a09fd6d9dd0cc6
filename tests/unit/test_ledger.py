"""The account of `watch --budget`: debts are paid back, savings do not count."""

from hypothesis import given, strategies as st

from pagescan.tracking.ledger import Ledger

SHARE = 0.02


@given(
    st.floats(0.2e-6, 5e-6),
    st.floats(10, 1e6),
    st.lists(st.floats(0.05, 4), min_size=40, max_size=40),
)
def test_the_budget_is_kept(fault: float, rate: float, seconds: list[float]) -> None:
    """Under any load the total cost is within the budget, apart from the first look.

    `rate` is the number of faults per second of processor time if all memory were
    tracked; each look's sample is planned with the load of the previous look.
    """
    ledger = Ledger(SHARE)
    used = spent = 0.0
    sample = min(1.0, 0.01)
    for now in seconds:
        used += now
        spent += sample * rate * fault * now
        ledger.take(used, spent)
        sample = min(1.0, 2 * sample, ledger.allowance() / (rate * fault * now))
    first = min(1.0, 0.01) * rate * fault * seconds[0]
    assert spent - first <= SHARE * used


def test_a_costly_look_is_paid_back() -> None:
    ledger = Ledger(SHARE)
    ledger.take(1.0, 0.0)
    usual = ledger.allowance()
    ledger.take(2.0, 0.05)
    assert ledger.allowance() < usual / 2
    used, spent = 2.0, 0.05
    for _ in range(30):
        spent += ledger.allowance()
        used += 1
        ledger.take(used, spent)
    assert spent / used < SHARE
    assert ledger.allowance() > usual * 0.9


def test_nothing_is_saved_up() -> None:
    """Quiet looks do not pay for a costly one later."""
    ledger = Ledger(SHARE)
    for number in range(1, 30):
        ledger.take(float(number), 0.0)
    assert ledger.allowance() <= SHARE


def test_an_idle_target_has_nothing_to_lose_and_nothing_to_spend() -> None:
    ledger = Ledger(SHARE)
    ledger.take(0.0, 0.0)
    assert ledger.allowance() == 0
