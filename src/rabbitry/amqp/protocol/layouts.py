"""The wire layouts of methods, and the registry of all methods that are loaded.

The decorator `method` names class and method id, the sender, and the wire layout, a letter for each argument: o octet,
h short, l long, q longlong, s short string, S long string, b bit, t table. Reserved arguments are sent as zero and
discarded on receipt: 0 short, 1 short string, 2 bit, 3 long string.
(Specification, section 1, and amqp0-9-1.xml.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from rabbitry._fields import Fields
from rabbitry.amqp.protocol.tables import Table

NO_ARGUMENTS: Final[Table] = {}
"""The table of a method without arguments for its queue, exchange or binding."""

CLIENT: Final = 1
SERVER: Final = 2
BOTH: Final = CLIENT | SERVER
"""The sides that may send a method, a bit for each."""


class Layout(Fields):
    """The wire layout of a method: its ids, its sender, its class and the types of its arguments."""

    class_id: int
    method_id: int
    sender: int
    make: Callable[..., Any]
    letters: str

    @property
    def signature(self) -> int:
        """Class and method id as one number, class first."""
        return self.class_id << 16 | self.method_id


BY_SIGNATURE: dict[int, Layout] = {}
"""Class and method id → layout. A client that has not loaded _seldom.py has sent no method of it: a broker that sends
an answer to one nevertheless breaks the protocol."""
BY_TYPE: dict[type, Layout] = {}
"""Class of the method → layout."""

_T = TypeVar("_T", bound=type)


def method(class_id: int, method_id: int, sender: int, letters: str) -> Callable[[_T], _T]:
    """Register a class as a method. The ids, `sender` and `letters` are those of its layout."""

    def register(cls: _T) -> _T:
        layout = Layout(class_id, method_id, sender, cls, letters)
        BY_SIGNATURE[layout.signature] = layout
        BY_TYPE[cls] = layout
        return cls

    return register
