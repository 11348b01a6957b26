"""Exchange type topic: words between dots, `*` for one word, `#` for any number (section 3.1.3.3).

Most patterns have few `*`, and no `#` or one at an end. These are in tries of words, one read from the front and one
from the back: no node of a trie is visited twice for a routing key. The other patterns are matched by `Automata`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rabbitry.amqp.protocol.properties import Properties
from rabbitry.broker._exchanges.automata import Automata
from rabbitry.broker._exchanges.exchange import Binding, Destination, Exchange

_FEW: Final = 2
"""Most `*` of a pattern in a trie: with more of them, a routing key of equal words may visit all of a trie's nodes."""
_Bound = dict[tuple[int, str, bytes], Destination]
"""Destinations by their bindings' identities."""


class _Node:
    """A word of a pattern: the words that may follow it, and the destinations bound here."""

    __slots__ = ("bound", "children")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.bound: _Bound = {}


class _Trie:
    """Patterns without `#`, or with one at their end."""

    def __init__(self) -> None:
        self._root = _Node()

    def match(self, words: Sequence[str], found: list[Destination]) -> None:
        """Add the destinations of all patterns that match."""
        places = [self._root]
        for word in words:
            following = []
            for node in places:
                children = node.children
                rest = children.get("#")
                if rest is not None:
                    found += rest.bound.values()
                # A * or # in the routing key is an ordinary word: only those in patterns are wildcards.
                if word not in ("*", "#") and (child := children.get(word)) is not None:
                    following.append(child)
                if (child := children.get("*")) is not None:
                    following.append(child)
            places = following
            if not places:
                return
        for node in places:
            found += node.bound.values()
            rest = node.children.get("#")
            if rest is not None:
                found += rest.bound.values()

    def add(self, pattern: Sequence[str], binding: Binding) -> None:
        """Add a binding."""
        node = self._root
        for word in pattern:
            node = node.children.setdefault(word, _Node())
        node.bound[binding.identity] = binding.destination

    def remove(self, pattern: Sequence[str], binding: Binding) -> None:
        """Remove a binding, and the nodes that only this binding needed."""
        path = [self._root]
        for word in pattern:
            path.append(path[-1].children[word])
        del path[-1].bound[binding.identity]
        for parent, word in zip(reversed(path[:-1]), reversed(pattern), strict=True):
            child = parent.children[word]
            if child.bound or child.children:
                break
            del parent.children[word]


class TopicExchange(Exchange):
    """Routes by patterns."""

    type = "topic"
    description = "AMQP topic exchange, as per the AMQP specification"

    def _set_up(self) -> None:
        self._forwards = _Trie()
        self._backwards = _Trie()
        self._automata = Automata()

    def match(self, routing_key: str, properties: Properties) -> Iterable[Destination]:
        """Return the destinations bound with a matching pattern."""
        words = _words(routing_key)
        found: list[Destination] = []
        self._forwards.match(words, found)
        self._backwards.match(words[::-1], found)
        self._automata.match(words, found)
        return found

    def _add(self, binding: Binding) -> None:
        words = _pattern(binding.routing_key)
        if words.count("*") > _FEW:
            self._automata.add(words, binding)
        elif "#" not in words[:-1]:
            self._forwards.add(words, binding)
        elif "#" not in words[1:]:
            self._backwards.add(words[::-1], binding)
        else:
            self._automata.add(words, binding)

    def _remove(self, binding: Binding) -> None:
        words = _pattern(binding.routing_key)
        if words.count("*") > _FEW:
            self._automata.remove(words, binding)
        elif "#" not in words[:-1]:
            self._forwards.remove(words, binding)
        elif "#" not in words[1:]:
            self._backwards.remove(words[::-1], binding)
        else:
            self._automata.remove(words, binding)


def _words(routing_key: str) -> list[str]:
    return routing_key.split(".") if routing_key else []


def _pattern(routing_key: str) -> list[str]:
    """Return the words of a pattern, with one `#` for several in a row, which match the same."""
    words: list[str] = []
    for word in _words(routing_key):
        if word != "#" or words[-1:] != ["#"]:
            words.append(word)
    return words
