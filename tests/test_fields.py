"""Records made with `Fields` behave as NamedTuples do, and `Members` as enumerations."""

import copy
import enum
import inspect
import json
import pickle
import pydoc
from typing import Any, NamedTuple

import pytest

from rabbitry import BrokerURL, Properties, QueueInfo, _fields
from rabbitry._fields import Fields
from rabbitry.amqp.protocol import layouts
from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.methods import BasicAck, BasicQos, ConnectionTune, QueueBind, TxSelect
from rabbitry.amqp.protocol.properties import EncodedProperties
from rabbitry.amqp.protocol.states import ChannelState
from rabbitry.runtime.backoff import Backoff


class Plain(NamedTuple):
    """As ConnectionTune, made by typing."""

    channel_max: int = 0
    frame_max: int = 0
    heartbeat: int = 0


@pytest.mark.parametrize("made", [(), (1,), (1, 2, 3)])
def test_a_method_is_a_tuple_with_names_and_defaults(made: tuple[int, ...]) -> None:
    ours, plain = ConnectionTune(*made), Plain(*made)
    assert tuple(ours) == tuple(plain)
    assert (ours.channel_max, ours.frame_max, ours.heartbeat) == tuple(plain)
    assert ours._asdict() == plain._asdict()
    assert ours._fields == plain._fields
    assert ours._field_defaults == plain._field_defaults
    assert repr(ours) == repr(plain).replace("Plain", "ConnectionTune")
    assert hash(ours) == hash(plain)
    assert tuple(ours._replace(heartbeat=9)) == tuple(plain._replace(heartbeat=9))
    assert type(ours._replace(heartbeat=9)) is ConnectionTune
    assert tuple(ConnectionTune._make(iter((1, 2, 3)))) == tuple(Plain._make(iter((1, 2, 3))))


def test_arguments_are_given_by_position_and_by_name() -> None:
    assert ConnectionTune(1, heartbeat=3) == (1, 0, 3)
    assert QueueBind("q", "e", arguments={"x": 1}).arguments == {"x": 1}
    assert TxSelect() == ()
    assert repr(TxSelect()) == "TxSelect()"


@pytest.mark.parametrize(
    ("args", "named", "text"),
    [((1, 2, 3, 4), {}, "takes 3"), ((), {"nonsense": 1}, "has no"), ((1,), {"channel_max": 1}, "two values")],
)
def test_wrong_arguments_are_a_type_error(args: tuple[Any, ...], named: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        ConnectionTune(*args, **named)
    with pytest.raises(TypeError):
        Plain(*args, **named)


def test_a_field_without_a_default_must_be_given() -> None:
    assert Backoff(1.0, longest=2.0)._replace(first=0.5) == (0.5, 2.0, 2.0, 0.5)
    with pytest.raises(TypeError, match="Backoff lacks the argument 'longest'"):
        Backoff(1.0)  # type: ignore[call-arg] # on purpose


def test_a_replaced_name_must_be_one_of_the_fields() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        BasicAck()._replace(nonsense=1)  # type: ignore[call-arg] # the name is wrong on purpose


def test_a_field_can_not_be_set() -> None:
    with pytest.raises(AttributeError):
        BasicQos().prefetch_count = 1  # type: ignore[misc] # on purpose


@pytest.mark.parametrize("layout", layouts.BY_TYPE.values(), ids=lambda layout: layout.make.__name__)
def test_no_other_attribute_can_be_set(layout: layouts.Layout) -> None:
    made = layout.make()
    with pytest.raises(AttributeError):
        setattr(made, "prefetch", 1)  # noqa: B010 - mypy would refuse an assignment
    assert not hasattr(made, "__dict__")


def test_methods_are_copied_pickled_and_matched() -> None:
    bound = QueueBind("q", "e", "k")
    assert pickle.loads(pickle.dumps(bound)) == bound  # noqa: S301 - its own
    assert type(pickle.loads(pickle.dumps(bound))) is QueueBind  # noqa: S301 - its own
    assert copy.deepcopy(bound) == bound
    match bound:
        case QueueBind(queue, exchange="e"):
            assert queue == "q"
        case _:
            pytest.fail("the pattern does not match")


@pytest.mark.parametrize("layout", layouts.BY_TYPE.values(), ids=lambda layout: layout.make.__name__)
def test_each_method_has_a_field_for_each_letter(layout: layouts.Layout) -> None:
    fields = layout.make()._fields
    assert len(fields) == sum(not letter.isdigit() for letter in layout.letters)


@pytest.mark.parametrize("kind", [ConnectionTune, Properties, BrokerURL, QueueInfo])
def test_help_shows_the_fields_as_parameters(kind: Any) -> None:
    parameters = inspect.signature(kind).parameters
    assert tuple(parameters) == kind._fields
    assert {name: one.default for name, one in parameters.items() if one.default is not one.empty} == (
        kind._field_defaults
    )
    text = pydoc.plain(pydoc.render_doc(kind)).replace("(\n |      ", "(")  # from Python 3.14 on, a line for each
    assert f"{kind.__name__}({kind._fields[0]}: " in text


def test_properties_take_all_of_their_fields() -> None:
    values = {name: index for index, name in enumerate(Properties._fields)}
    assert tuple(Properties(**values)) == tuple(Properties(*values.values())) == tuple(range(14))  # type: ignore[arg-type] # their order is what is tested
    assert Properties() == (None,) * 14
    assert EncodedProperties(1, b"a", b"b") == (1, b"a", b"b", None)
    assert EncodedProperties(1, b"a", after=b"b", message_id=b"c") == (1, b"a", b"b", b"c")
    assert Properties(type="a")._replace(app_id="b") == Properties(type="a", app_id="b")
    with pytest.raises(TypeError, match=r"^Properties\.__new__\(\) got an unexpected keyword argument 'nonsense'"):
        Properties(nonsense=1)  # type: ignore[call-arg] # on purpose


class Named(Properties):
    """A program's own class of properties."""

    origin: str = "here"

    @property
    def label(self) -> str:
        """A property of a subclass."""
        return f"{self.type} of {self.app_id}"


def test_a_subclass_of_a_record_behaves_as_one_of_a_named_tuple() -> None:
    made = Named(type="a", app_id="b")
    assert made == Properties(type="a", app_id="b")
    assert Named._fields == Properties._fields
    assert repr(made).startswith("Named(content_type=None, ")
    assert (made.label, made.origin) == ("a of b", "here")
    made.note = 1  # type: ignore[attr-defined] # a subclass without `__slots__` has a `__dict__`
    assert type(made._replace(type="c")) is Named
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301 - its own


class PlainState(enum.Enum):
    """As ChannelState, made by enum."""

    CLOSED = "closed"
    OPENING = "opening"


class PlainReply(enum.IntEnum):
    """As Reply, made by enum."""

    SUCCESS = 200
    CONTENT_TOO_LARGE = 311


@pytest.mark.parametrize(("ours", "plain"), [(ChannelState, PlainState), (Reply, PlainReply)])
def test_members_behave_as_those_of_enum(ours: Any, plain: Any) -> None:
    def as_ours(text: str) -> str:
        return text.replace(plain.__name__, ours.__name__)

    assert list(ours.__members__)[:2] == list(plain.__members__)
    assert list(ours.__members__.values()) == list(ours)
    assert len(ours) == len(list(ours))
    assert list(reversed(ours)) == list(ours)[::-1]
    assert bool(ours)
    for member in plain:
        found = ours[member.name]
        assert (found.name, found.value) == (member.name, member.value)
        assert ours(member.value) is ours(found) is found
        assert (repr(found), str(found), f"{found}") == (
            as_ours(repr(member)),
            as_ours(str(member)),
            as_ours(f"{member}"),
        )
        assert found in ours
        assert member.value in ours
        assert pickle.loads(pickle.dumps(found)) is copy.copy(found) is found  # noqa: S301 - its own
        assert json.dumps({"a": found.value}) == json.dumps({"a": member.value})
    assert "nonsense" not in ours
    assert [] not in ours
    for kind in ours, plain:
        with pytest.raises(KeyError, match="NONSENSE"):
            kind["NONSENSE"]
        with pytest.raises(ValueError, match=r"\[\] is not a valid"):
            kind([])


def test_members_are_found_by_name_and_value() -> None:
    assert [state.value for state in ChannelState][:2] == ["closed", "opening"]
    assert ChannelState("open") is ChannelState.OPEN
    assert (ChannelState.OPEN.name, repr(ChannelState.OPEN)) == ("OPEN", "<ChannelState.OPEN: 'open'>")
    assert copy.deepcopy(ChannelState.OPEN) is ChannelState.OPEN  # by the protocol of pickle
    with pytest.raises(ValueError, match="'opened' is not a valid ChannelState"):
        ChannelState("opened")


def test_numbers_with_names_are_numbers() -> None:
    assert Reply(404) is Reply.NOT_FOUND
    assert (Reply.NOT_FOUND, Reply.NOT_FOUND.name, Reply.NOT_FOUND + 1) == (404, "NOT_FOUND", 405)
    assert f"{Reply.NOT_FOUND} {Reply.NOT_FOUND!s}" == "404 404"
    assert {404: "no such queue"}[Reply.NOT_FOUND] == "no such queue"
    assert json.dumps([Reply.NOT_FOUND]) == "[404]"


def test_classes_that_two_threads_create_at_once_have_their_own_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second class is created while the first one makes its descriptors, as by another thread in that moment."""

    def create(name: str, count: int) -> Any:
        fields = {f"field_{number}": "int" for number in range(count)}
        return type(Fields)(name, (Fields,), {"__annotations__": fields})  # type: ignore[misc] # its metaclass

    def place(number: int, text: str) -> object:
        if not created:
            created["second"] = None
            created["second"] = create("Second", 4)
        return make(number, text)

    created: dict[str, Any] = {}
    make = _fields._Place  # type: ignore[attr-defined] # type checkers see NamedTuple
    monkeypatch.setattr(_fields, "_Place", place)
    monkeypatch.setattr(_fields, "_places", type(_fields._places)())  # type: ignore[attr-defined] # as above
    created["first"] = create("First", 5)
    for name, count in (("first", 5), ("second", 4)):
        record = created[name](*range(count))
        assert [getattr(record, field) for field in record._fields] == [*range(count)]
