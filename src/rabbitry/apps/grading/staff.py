"""The staff's side: answers to requests for another look, over the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from rabbitry._ids import NoSuchID
from rabbitry.apps.grading.answering import KEY, Answer, Reply
from rabbitry.apps.grading.message import LONGEST_NAME, LONGEST_TEXT, now, sendable
from rabbitry.apps.grading.stages import RoleSet, RoleSpec, Wiring
from rabbitry.exceptions import RequestTimeout, UsageError
from rabbitry.flow.exceptions import CallFailed, CallTimeout
from rabbitry.flow.message import node_name

if TYPE_CHECKING:
    from rabbitry.apps.grading.rows import Request
    from rabbitry.apps.grading.signatures import Signer

REPLY_WITHIN: Final = 10.0
"""Seconds that a coordinator has for its reply to an answer. The answer waits in its queue for as long as it takes."""


def made(submission: str, number: int, given: str, role: str, who: str, remark: str) -> Answer:
    """Return an answer to a request, made now and here.

    Args:
        submission: The submission's id.
        number: The request's number.
        given: `upheld` or `refused`.
        role: The role that answers.
        who: The person who answers.
        remark: Why; needed to refuse.
    """
    if len(remark) > LONGEST_TEXT:
        raise UsageError(f"a remark may have at most {LONGEST_TEXT} characters")
    return Answer(
        submission, number, given, role, sendable(who)[:LONGEST_NAME], node_name(), now(), sendable(remark.strip())
    )


async def answer(
    wiring: Wiring, url: str, told: Answer, *, signer: Signer | None = None, strict: bool = False
) -> Request:
    """Send an answer to the coordinator. Return the answered request, as it is recorded.

    Args:
        wiring: The course's settings.
        url: The broker.
        told: The answer.
        signer: The key that signs it; None signs nothing.
        strict: Raise TopologyMismatch if something exists on the broker with other flags.

    Raises:
        NoSuchID: There is no such request.
        UsageError: The answer is refused; the text says why.
        RequestTimeout: No coordinator has replied yet. The answer waits on the broker.
        ConnectFailed: The broker can't be reached.
    """
    if signer is not None:
        told = msgspec.convert(signer.sign_answer(msgspec.to_builtins(told)), Answer)
    async with RoleSet(wiring, [RoleSpec("coordinator")]).app().publisher(url, strict=strict) as publisher:
        try:
            reply = await publisher.call(told, key=KEY, timeout=REPLY_WITHIN, type=Reply)
        except CallTimeout as error:
            raise RequestTimeout("no coordinator has replied; the answer waits on the broker until one runs") from error
        except CallFailed as error:
            raise UsageError(f"the coordinator did not take the answer: {error}") from error
    if reply.request is None:
        said = reply.error or "the answer was refused"
        raise NoSuchID(said) if reply.is_unknown else UsageError(said)
    return reply.request
