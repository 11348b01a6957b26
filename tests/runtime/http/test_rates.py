"""How often an address may do something."""

from rabbitry.runtime.http.rates import ADDRESSES, Rates


def test_an_address_has_a_burst_and_then_one_in_each_pause() -> None:
    now = 1_000.0
    rates = Rates(3, 2.0, lambda: now)
    assert [rates.take("a") for _ in range(4)] == [0, 0, 0, 2]
    assert rates.take("b") == 0  # others have their own
    now += 1.5
    assert rates.take("a") == 0.5  # what was refused did not count
    now += 0.5
    assert [rates.take("a") for _ in range(2)] == [0, 2]
    now += 3_600
    assert [rates.take("a") for _ in range(4)] == [0, 0, 0, 2]


def test_the_number_of_addresses_is_bounded() -> None:
    rates = Rates(1, 60.0, lambda: 0.0)
    for number in range(ADDRESSES + 10):
        rates.take(str(number))
    assert len(rates) == ADDRESSES
    assert (rates.take(str(ADDRESSES + 9)), rates.take("0")) == (60, 0)
