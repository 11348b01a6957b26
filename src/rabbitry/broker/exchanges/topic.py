"""Exchange type topic: words between dots, `*` for one word, `#` for any number (section 3.1.3.3).

A trie of words: matching takes time by the words of the routing key, not by the number of bindings. Where patterns
with many `*` and `#` lead to very many places at once, all of them are matched together instead (see `automaton`).
"""

from collections.abc import Iterable
from typing import Final

from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker.exchanges.automaton import Automaton
from rabbitry.broker.exchanges.exchange import Binding, Destination, Exchange

_MOST_PLACES: Final = 2_000
"""Places in the trie that matching one key may look at."""


class _Node:
    """A word of a pattern, what follows it, and what is bound there."""

    __slots__ = ("bound", "children")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.bound: dict[tuple[int, str, bytes], Destination] = {}


class TopicExchange(Exchange):
    """Routes by patterns."""

    type = "topic"

    def __init__(
        self, name: str, *, durable: bool = True, auto_delete: bool = False, internal: bool = False, arguments: Table
    ) -> None:
        super().__init__(name, durable=durable, auto_delete=auto_delete, internal=internal, arguments=arguments)
        self._root = _Node()
        self._automaton: Automaton | None = None

    def match(self, routing_key: str, headers: Table) -> Iterable[Destination]:
        """Return what is bound with a pattern that matches.

        All places in the trie that the words so far lead to are followed at once, so no place is visited
        twice for the same word, however many `#` the patterns hold.
        """
        words = _words(routing_key)
        if self._automaton is not None:
            return self._match_together(words)
        places = _with_hash({id(self._root): self._root})
        looked_at = 0
        for word in words:
            looked_at += len(places)
            if looked_at > _MOST_PLACES:
                return self._match_together(words)
            following: dict[int, _Node] = {}
            for node, is_hash in places.values():
                if is_hash:
                    following[id(node)] = node
                # A * or # in the routing key is a word like others: only the pattern's own have a meaning.
                for name in ("*",) if word in ("*", "#") else (word, "*"):
                    child = node.children.get(name)
                    if child is not None:
                        following[id(child)] = child
            places = _with_hash(following, {key for key, (_, is_hash) in places.items() if is_hash})
        found: list[Destination] = []
        for node, _ in places.values():
            found += node.bound.values()
        return found

    def _match_together(self, words: list[str]) -> list[Destination]:
        """Match all patterns at once; what that takes is kept until bindings change."""
        if self._automaton is None:
            keys = dict.fromkeys(binding.routing_key for binding in self.bindings.values())
            self._automaton = Automaton((key, _words(key)) for key in keys)
        found: list[Destination] = []
        for key in self._automaton.match(words):
            node = self._root
            for word in _words(key):
                node = node.children[word]
            found += node.bound.values()
        return found

    def _add(self, binding: Binding) -> None:
        self._automaton = None
        node = self._root
        for word in _words(binding.routing_key):
            node = node.children.setdefault(word, _Node())
        node.bound[binding.identity] = binding.destination

    def _remove(self, binding: Binding) -> None:
        self._automaton = None
        path = [self._root]
        words = _words(binding.routing_key)
        for word in words:
            path.append(path[-1].children[word])
        del path[-1].bound[binding.identity]
        for parent, word in zip(reversed(path[:-1]), reversed(words), strict=True):
            child = parent.children[word]
            if child.bound or child.children:
                break
            del parent.children[word]


def _words(routing_key: str) -> list[str]:
    return routing_key.split(".") if routing_key else []


def _with_hash(places: dict[int, _Node], hashes: set[int] | None = None) -> dict[int, tuple[_Node, bool]]:
    """Add the `#` nodes that can be reached without a word; say of each place whether it is one."""
    hashes = hashes or set()
    result = {key: (node, key in hashes) for key, node in places.items()}
    waiting = list(places.values())
    while waiting:
        child = waiting.pop().children.get("#")
        if child is not None and not result.get(id(child), (child, False))[1]:
            result[id(child)] = (child, True)
            waiting.append(child)
    return result
