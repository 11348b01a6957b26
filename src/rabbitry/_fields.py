"""The bases of records and constants that the client imports: NamedTuple, Enum and IntEnum, cheap to create.

`typing.NamedTuple` and `dataclasses.dataclass` compile code for each class, `typing.NamedTuple` also each annotation.
For the 66 methods of AMQP and the options of a connection that was the largest part of the cost of importing the client
(benchmarks/importing.py). `enum` takes 6 µs for each of the protocol's 56 states, events and reply codes, these bases a
tenth. Type checkers see the standard library's classes. Lookups, texts, copies and subclasses are as there; members are
no instances of `enum.Enum`, however, and libraries that ask for these, such as msgspec, do not encode them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enum import Enum as Members
    from enum import IntEnum as IntMembers
    from typing import NamedTuple as Fields
else:
    import inspect  # asyncio has imported it

    _Place = type(inspect.FullArgSpec.args)
    """The type of the descriptors of named tuples, which are as fast to read as slots."""
    _places = ()
    """The descriptors of the fields of all classes: that of the first field, the second, …

    Threads may create classes at once, each while it imports a module: the tuple is replaced and never changed.
    """

    class _Record(type):
        """Creates classes with a descriptor for each annotation in the class's body.

        All names are in the namespace before the class exists, since each later change of a class costs Python time.
        Instances have no `__dict__`, therefore a misspelt attribute can't be set.
        """

        def __new__(mcs, name, bases, namespace):
            global _places
            if any(getattr(base, "_fields", ()) for base in bases):
                # As with NamedTuple, a subclass has the fields of its base, and its instances have a `__dict__`.
                return type.__new__(mcs, name, bases, namespace)
            if names := tuple(namespace.get("__annotations__", ())):
                places = _places
                if len(places) < len(names):
                    places = _places = tuple(_Place(place, "") for place in range(len(names)))
                defaults = {}
                for field, place in zip(names, places, strict=False):
                    if field in namespace:
                        defaults[field] = namespace[field]
                    namespace[field] = place
                namespace["_fields"] = namespace["__match_args__"] = names
                namespace["_field_defaults"] = defaults
            namespace["__slots__"] = ()
            return type.__new__(mcs, name, bases, namespace)

        @property
        def __signature__(cls):
            """The parameters of a class's constructor, for `help` and `inspect.signature`."""
            made, types, defaults = inspect.Parameter, inspect.get_annotations(cls), cls._field_defaults
            return inspect.Signature(
                made(name, made.POSITIONAL_OR_KEYWORD, default=defaults.get(name, made.empty), annotation=types[name])
                for name in cls._fields
            )

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
            names, defaults = cls._fields, cls._field_defaults
            values = defaults | named
            if not args and len(values) == len(defaults) == len(names):
                return values.values()  # in their order, since that of the defaults is kept
            given = names[: len(args)]
            if len(args) > len(given):
                raise TypeError(f"{cls.__name__} takes {len(given)} arguments, not {len(args)}")
            for name in named:
                if name not in names or name in given:
                    problem = "got two values for" if name in given else "has no"
                    raise TypeError(f"{cls.__name__} {problem} argument {name!r}")
            try:
                return (*args, *[values[name] for name in names[len(args) :]])
            except KeyError as error:
                raise TypeError(f"{cls.__name__} lacks the argument {error}") from None

        def __repr__(self):
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

        def __getnewargs__(self):
            return tuple(self)

        @classmethod
        def _make(cls, values):
            made = tuple.__new__(cls, values)
            return made if len(made) == len(cls._fields) else cls(*made)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **named):
            values = self._asdict() | named
            return tuple.__new__(type(self), values.values()) if len(values) == len(self) else type(self)(**values)

        __replace__ = _replace  # of copy.replace, from Python 3.13 on

    class _Enumeration(type):
        """Creates classes whose public attributes are instances of them, with a name and a value."""

        def __new__(mcs, name, bases, namespace):
            cls = type.__new__(mcs, name, bases, namespace)
            cls._members = {}
            for member, value in namespace.items():
                if not member.startswith("_"):
                    made = int.__new__(cls, value) if issubclass(cls, int) else object.__new__(cls)
                    made.name, made.value = member, value
                    setattr(cls, member, made)
                    cls._members[value] = made
            return cls

        @property
        def __members__(cls):
            """The members by name."""
            return {made.name: made for made in cls}

        def __iter__(cls):
            return iter(cls._members.values())

        def __reversed__(cls):
            return reversed(cls._members.values())

        def __len__(cls):
            return len(cls._members)

        def __bool__(cls):
            return True  # a class is never empty, as with Enum

        def __contains__(cls, value):
            """Return whether a value is a member or that of one, as from Python 3.12 on."""
            return any(value is made or value == made.value for made in cls)

        def __getitem__(cls, name):
            """Return the member of this name. Raises KeyError if there is none."""
            return cls.__members__[name]

        def __call__(cls, value):
            """Return the member of this value, or the member given. Raises ValueError if there is none."""
            if isinstance(value, cls):
                return value
            try:
                return cls._members[value]
            except (KeyError, TypeError):  # TypeError: a list, which can't be looked up
                raise ValueError(f"{value!r} is not a valid {cls.__name__}") from None

    class Members(metaclass=_Enumeration):
        """Constants with names, compared by identity."""

        def __repr__(self):
            return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

        def __str__(self):
            return f"{type(self).__name__}.{self.name}"

        def __reduce__(self):
            return type(self), (self.value,)

    class IntMembers(int, Members):
        """Numbers with names."""

        __repr__ = Members.__repr__
        __str__ = int.__repr__


__all__ = ["Fields", "IntMembers", "Members"]
