"""The base of the classes in methods.py: a NamedTuple whose class is cheap to create.

`typing.NamedTuple` compiles code for each class and each annotation. For the 66 methods of AMQP that was the largest
part of the cost of importing the client (benchmarks/importing.py). Type checkers see `typing.NamedTuple`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NamedTuple as Arguments
else:
    from operator import itemgetter

    class _WithoutDict(type):
        """Creates classes whose instances have no `__dict__`: a misspelt attribute can't be set."""

        def __new__(mcs, name, bases, namespace):
            return super().__new__(mcs, name, bases, namespace | {"__slots__": ()})

    class Arguments(tuple, metaclass=_WithoutDict):
        """A tuple whose fields have names and defaults: those of the annotations in the class's body."""

        _fields = ()
        _field_defaults = {}  # noqa: RUF012 - each class has its own

        def __init_subclass__(cls):
            cls._fields = cls.__match_args__ = tuple(cls.__annotations__)
            cls._field_defaults = {name: vars(cls)[name] for name in cls._fields}
            for index, name in enumerate(cls._fields):
                setattr(cls, name, property(itemgetter(index)))

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
                if name not in cls._field_defaults or name in given:
                    problem = "got two values for" if name in given else "has no"
                    raise TypeError(f"{cls.__name__} {problem} argument {name!r}")
            return (*args, *(named.get(name, cls._field_defaults[name]) for name in cls._fields[len(args) :]))

        def __repr__(self):
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

        def __getnewargs__(self):
            return tuple(self)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **named):
            return type(self)(**(self._asdict() | named))


__all__ = ["Arguments"]
