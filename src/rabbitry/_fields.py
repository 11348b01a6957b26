"""The base of records that the client imports: a NamedTuple whose class is cheap to create.

`typing.NamedTuple` and `dataclasses.dataclass` compile code for each class. For the 66 methods of AMQP and the options
of a connection that was the largest part of the cost of importing the client (benchmarks/importing.py). Creating an
object takes longer, therefore what is made for each message is a `typing.NamedTuple`. Type checkers see that in both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NamedTuple as Fields
else:
    from operator import itemgetter

    _places = []
    """The properties of the fields of all classes: that of the first field, the second, …"""

    class _Record(type):
        """Creates classes with a property for each annotation in the class's body.

        All names are in the namespace before the class exists, since each later change of a class costs Python time.
        Instances have no `__dict__`, therefore a misspelt attribute can't be set.
        """

        def __new__(mcs, name, bases, namespace):
            if names := tuple(namespace.get("__annotations__", ())):
                while len(_places) < len(names):
                    _places.append(property(itemgetter(len(_places))))
                defaults = {field: namespace[field] for field in names if field in namespace}
                namespace |= dict(zip(names, _places, strict=False))
                namespace |= {"_fields": names, "__match_args__": names, "_field_defaults": defaults}
            return super().__new__(mcs, name, bases, namespace | {"__slots__": ()})

    class Fields(tuple, metaclass=_Record):
        """A tuple whose fields have names and defaults: those of the annotations in the class's body."""

        _fields = ()
        _field_defaults = {}  # noqa: RUF012 - each class has its own

        def __new__(cls, *args, **named):
            if named or len(args) != len(cls._fields):
                args = cls._complete(args, named)
            return tuple.__new__(cls, args)

        @classmethod
        def _complete(cls, args, named):
            """Return the values of all fields. Raises TypeError as a function with these parameters does."""
            given = cls._fields[: len(args)]
            if len(args) > len(given):
                raise TypeError(f"{cls.__name__} takes {len(given)} arguments, not {len(args)}")
            for name in named:
                if name not in cls._fields or name in given:
                    problem = "got two values for" if name in given else "has no"
                    raise TypeError(f"{cls.__name__} {problem} argument {name!r}")
            values = cls._field_defaults | named
            rest = cls._fields[len(args) :]
            if absent := [name for name in rest if name not in values]:
                raise TypeError(f"{cls.__name__} lacks the argument {absent[0]!r}")
            return (*args, *(values[name] for name in rest))

        def __repr__(self):
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

        def __getnewargs__(self):
            return tuple(self)

        @classmethod
        def _make(cls, values):
            return cls(*values)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **named):
            return type(self)(**(self._asdict() | named))

        __replace__ = _replace  # of copy.replace, from Python 3.13 on


__all__ = ["Fields"]
