"""The shapes of the answers of the dashboard's own routes, as its OpenAPI document describes them.

tests/web/described.py checks answers against them.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class Done(TypedDict):
    """A change that was made. done: which one."""

    done: str


class Fetches(TypedDict):
    """The answer of a broker that can show messages only by delivering them: send a POST to have it do so."""

    fetches: Literal[True]


class Message(TypedDict):
    """A message of a queue, as the management API has it. payload: its beginning in base64, masked; empty if hidden."""

    exchange: str
    routing_key: str
    redelivered: bool
    properties: dict[str, Any] | list[Any]
    payload: str
    payload_bytes: int
    payload_encoding: Literal["base64"]
    shown_bytes: int
    is_masked: bool
    is_hidden: bool


class Messages(TypedDict):
    """Messages of a queue, after the first `offset`. ready: the number of ready messages, if the broker tells it."""

    offset: int
    messages: list[Message]
    ready: NotRequired[int | None]


class PauseHeld(TypedDict):
    """The pause of a stage. paused: whether this request made it. by, at (ISO 8601), why: of the request that did."""

    paused: bool
    by: str
    at: str
    why: str


class Resumed(TypedDict):
    """The end of a pause. resumed: whether the stage was paused."""

    resumed: bool


class AsyncAPI(TypedDict):
    """The AsyncAPI 3.0 document of an app (https://www.asyncapi.com/docs/reference/specification/v3.0.0)."""

    asyncapi: str
    info: dict[str, Any]
    defaultContentType: str
    channels: dict[str, Any]
    operations: dict[str, Any]
    components: dict[str, Any]


class LetterGroup(TypedDict):
    """Dead letters of one stage, reason and kind of error. example: an error. first, last: when they failed."""

    stage: str
    reason: str
    kind: str
    example: str
    count: int
    first: str
    last: str


class LetterGroups(TypedDict):
    """The groups of an app's dead letters. seen: how many of `total` were read. others: those in no group of these."""

    total: int
    seen: int
    groups: list[LetterGroup]
    others: int


class Letter(TypedDict):
    """A dead letter. body: its beginning in base64, masked. size: bytes of the whole. mark: selects this one."""

    id: str
    type: str
    stage: str
    reason: str
    error: str
    traceback: str
    attempts: int
    exchange: str
    routing_key: str
    queue: str
    failed_at: str
    node: str
    correlation_id: str
    content_type: str
    cut: str
    mark: str
    body: str
    shown_bytes: int
    is_masked: bool
    is_hidden: bool
    size: int
    properties: dict[str, Any]
    headers: dict[str, Any]


class Letters(TypedDict):
    """A page of selected dead letters, after the first `skip`. more: whether others follow."""

    letters: list[Letter]
    skip: int
    more: bool


class Target(TypedDict):
    """A target of a replay, and how many messages go there. missing: whether it is not there. consumers: of a queue."""

    exchange: str
    key: str
    count: int
    missing: NotRequired[Literal[True]]
    consumers: NotRequired[float]


class DryRun(TypedDict):
    """The dry run of a replay. whole: whether all were read. others: messages for targets that are not listed."""

    count: int
    whole: bool
    seen: int
    targets: list[Target]
    others: int


class EditedBody(TypedDict):
    """The body of a dead letter in base64; null if it is gone."""

    body: str | None


class BodyCheck(TypedDict):
    """A check of a body. known: whether the type of the stage's messages is known. problems: errors of the body."""

    known: bool
    problems: list[str]


class Started(TypedDict):
    """A replay or drop that has begun. The topic `replays` has its progress."""

    started: Literal["replay", "drop"]


class Entry(TypedDict):
    """An entry of the audit log. at: Unix time."""

    at: float
    who: str
    action: str
    vhost: str
    queue: str
    result: str


class NamedSeries(TypedDict):
    """A number that is recorded: of a thing (`subject`) of an app, or of `broker`."""

    app: str
    subject: str
    name: str


class TopicNow(TypedDict):
    """A topic as it is now: `value`, or for a table `columns` to `matching`. docs/dashboard.md describes each topic.

    at: the Unix time of its data. keys: how many of the first columns identify a row. first: the number of the first
    row here. total, matching: rows of the table, and those that the filter leaves.
    """

    at: float
    value: NotRequired[dict[str, Any]]
    columns: NotRequired[list[str]]
    keys: NotRequired[int]
    first: NotRequired[int]
    rows: NotRequired[list[list[str | float]]]
    total: NotRequired[int]
    matching: NotRequired[int]


class Me(TypedDict):
    """The user, their role, and whether the dashboard has a login."""

    name: str
    role: str
    has_login: bool


class SignedOut(TypedDict):
    """A session that ended. leave: where the user leaves the provider through which they signed in."""

    done: str
    leave: NotRequired[str]


class SignedIn(TypedDict):
    """The user whose session began."""

    name: str


class ReportedPassage(TypedDict):
    """A message's passage through a stage. began, published: Unix times; seconds, waited: in the handler, before it.

    ids, keys: the first of the `led` messages that it led to. end: `dead`, `again` or empty.
    """

    chain: str
    message: str
    app: str
    stage: str
    queue: str
    host: str
    node: str
    began: float
    seconds: float
    waited: float
    published: float
    attempt: int
    outcome: str
    end: str
    error: str
    trace: str
    keys: list[str]
    ids: list[str]
    led: int


class Reporting(TypedDict):
    """The reports that passages come from.

    share: the smallest share of chains that a live node reports; missed: passages that were left out; nodes: how many
    live; kept: seconds for which passages are kept.
    """

    share: float
    missed: int
    nodes: int
    kept: float


class Chain(Reporting):
    """The passages of a chain, at most `most`."""

    chain: str
    passages: list[ReportedPassage]
    most: int


class Recent(Reporting):
    """The last passages of the newest chains."""

    failed: list[ReportedPassage]
    others: list[ReportedPassage]


class Named(TypedDict):
    """A result of a search. id: of a message. key: of a member of the topic `topology`."""

    kind: Literal["message", "host", "stage", "queue"]
    title: str
    id: NotRequired[str]
    key: NotRequired[str]
