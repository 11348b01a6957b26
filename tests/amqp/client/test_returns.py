"""The index that finds returned publishes."""

from collections import UserDict
from dataclasses import dataclass

from rabbitry.amqp.client._returns import ReturnIndex


@dataclass
class _Sent:
    message_id: bytes
    is_returned: bool = False


class _Counted(UserDict[int, _Sent]):
    """Unconfirmed publishes that count how often one is looked up."""

    lookups = 0

    def __getitem__(self, tag: int) -> _Sent:
        self.lookups += 1
        return super().__getitem__(tag)


def _found(index: ReturnIndex[_Sent], message_id: bytes, pending: _Counted, next_tag: int) -> list[int]:
    tags = {id(entry): tag for tag, entry in pending.items()}
    return [tags[id(entry)] for entry in index.find(message_id, pending, next_tag)]


def test_each_return_costs_the_same_however_many_are_unconfirmed() -> None:
    for ids in ([b"%d" % tag for tag in range(1, 4001)], [b"equal"] * 4000):
        pending = _Counted({tag: _Sent(message_id) for tag, message_id in enumerate(ids, 1)})
        index: ReturnIndex[_Sent] = ReturnIndex(8000)
        for tag in range(1, 4001):
            entry = next(index.find(ids[tag - 1], pending, 4001))
            entry.is_returned = True
            assert entry is pending.data[tag]
        assert pending.lookups < 10 * 4000


def test_unconfirmed_unreturned_publishes_are_found_oldest_first() -> None:
    pending = _Counted({tag: _Sent(b"a" if tag % 2 else b"b") for tag in range(1, 7)})
    index: ReturnIndex[_Sent] = ReturnIndex(100)
    assert _found(index, b"a", pending, 7) == [1, 3, 5]
    del pending[1]
    pending[5].is_returned = True
    assert _found(index, b"a", pending, 7) == [3]
    assert _found(index, b"c", pending, 7) == []
    pending[7] = _Sent(b"a")
    assert _found(index, b"a", pending, 8) == [3, 7]


def test_confirmed_publishes_are_dropped_and_the_index_is_bounded() -> None:
    pending = _Counted()
    index: ReturnIndex[_Sent] = ReturnIndex(20)
    for tag in range(1, 200):
        pending[tag] = _Sent(b"%d" % tag)
        if tag > 10:
            del pending[tag - 10]
        assert _found(index, b"%d" % tag, pending, tag + 1) == [tag]
        assert sum(map(len, index._by_id.values())) <= 20
    for tag in range(200, 1000):  # routed: nothing is returned, and the index is not asked
        pending[tag] = _Sent(b"%d" % tag)
        del pending[tag - 10]
    assert _found(index, b"995", pending, 1000) == [995]
    assert sum(map(len, index._by_id.values())) <= 20
