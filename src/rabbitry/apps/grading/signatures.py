"""Signatures of the roles (Ed25519): who may sign for which role, signing, and checking what was received.

A role signs the hop that it appends to a History. The History is in the body, which programs that know nothing of
signatures keep; headers and properties of a message would be lost there. Signed are, in a canonical form, the
submission's id, all earlier hops, and this hop with its time, the hash of the file, and a digest of the other fields
(`covers`). Each hop's signature can therefore be checked later from the History alone, and the last one also against
the fields. Answers to requests for another look are messages of their own, and signed as a whole.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import msgspec

from rabbitry._decode import MAX_DEPTH, is_deeper_than
from rabbitry.apps.grading.message import ANSWER, COVERED, HASH, HISTORY, ID, SOLUTION, Assignment
from rabbitry.exceptions import UsageError
from rabbitry.flow.exceptions import Reject

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

COVERS: Final = "covers"
KEY: Final = "key"
SIGNATURE: Final = "signature"
Policy: TypeAlias = Literal["flag", "refuse"]
_CONTEXT: Final = "rabbitry grading hop 1"
"""Signed with each hop, so that a signature for anything else is none of a hop."""
_ANSWER: Final = "rabbitry grading answer 1"
"""Signed with each answer to a request for another look."""
_GIVES: Final = {
    "demonstrator": ("corrected", "declined", "upheld", "refused"),
    "assistant": ("validated", "submitted", "upheld", "refused"),
    "coordinator": ("confirmed", "submitted"),
}
"""Role → the statuses that it gives; `submitted` sends back, or has a submission marked again.

The last two of demonstrators and assistants answer a request for another look.
"""
_LENGTHS: Final = {"public": 32, "signature": 64}
_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True)
class Key:
    """A public key. public: its 32 bytes as base64. modules: the only ones for whose submissions it holds."""

    name: str
    public: str
    roles: tuple[str, ...]
    modules: tuple[str, ...] | None = None

    def may_sign(self, role: object, status: object, module: str) -> bool:
        """Return whether a hop of a role to a status may have this key's signature."""
        is_roles = role in self.roles and status in _GIVES.get(str(role), ())
        return is_roles and (self.modules is None or module in self.modules)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a hop's signature is worth.

    Attributes:
        signer: The name of the key that signed it; None if it is not signed by a role that may.
        doubt: Why it is not; None if it is, or needs no signature.
        is_forged: Whether it has a signature of the course that is wrong, and not merely none.
    """

    signer: str | None = None
    doubt: str | None = None
    is_forged: bool = False


_TOO_DEEP: Final = Finding(doubt="its History is nested too deep to be signed")


@dataclass(frozen=True, slots=True)
class Signatures:
    """The keys of a course by their public bytes. unsigned: whether a message without a signature is refused."""

    keys: Mapping[str, Key]
    unsigned: Policy = "flag"

    def modules_of(self, signer: Signer) -> tuple[str, ...] | None:
        """Return the only modules for which a role's key holds; None for all."""
        key = self.keys.get(signer.public)
        return None if key is None else key.modules

    def check(self, assignment: Assignment) -> Finding:
        """Check the last hop of a received assignment or report, and the file if it is there.

        A submission that no role has handled needs no signature: students have no keys, and are not trusted.

        Raises:
            Reject: The signature is wrong, or there is none and the policy is to refuse.
        """
        return self._accepted(self._found(assignment), assignment.status)

    def check_answer(self, told: Mapping[str, Any], module: str) -> Finding:
        """Check an answer to a request for another look at a submission of a module.

        Raises:
            Reject: As for `check`.
        """
        found = self._worth(told, told.get("Role"), told.get("Answer"), module, partial(_signed_answer, told))
        return self._accepted(found, str(told.get("Answer"))[:40])

    def _accepted(self, found: Finding, status: str) -> Finding:
        if found.doubt is not None and (found.is_forged or self.unsigned == "refuse"):
            raise Reject(f"not accepted as {status!r}: {found.doubt}")
        return found

    def _found(self, assignment: Assignment) -> Finding:
        hops = assignment.history
        if not hops or (len(hops) == 1 and hops[0].get("role") == "student" and assignment.status == "submitted"):
            is_new = assignment.status == "submitted"
            return Finding() if is_new else Finding(doubt="no hop tells who changed its status, so none is signed")
        if is_deeper_than(hops, MAX_DEPTH):
            return _TOO_DEEP
        # No hop but the one above may lack a signature here, whatever role it names.
        last = self._finding(assignment, _digest_of(hops[:-1]), hops[-1])
        if assignment.status != hops[-1].get("status"):
            return Finding(doubt=f"the status is not signed: the last hop is {str(hops[-1].get('status'))[:40]!r}")
        if last.doubt is not None:
            return last
        if hops[-1].get(COVERS) != _covers(assignment):
            return Finding(None, "a field differs from what was signed", is_forged=True)
        # A file that can't be decoded has no digest, and was signed without one.
        if _has_file(assignment) and _file_digest(assignment) != hops[-1].get(HASH):
            return Finding(None, "the file is not the one that was signed", is_forged=True)
        return last

    def findings(self, assignment: Assignment) -> list[Finding]:
        """Return what the signature of each hop is worth, without a look at the fields outside of the History."""
        if is_deeper_than(assignment.history, MAX_DEPTH):
            return [_TOO_DEEP] * len(assignment.history)
        before, found = "", []
        for number, hop in enumerate(assignment.history):
            is_students = number == 0 and (hop.get("role"), hop.get("status")) == ("student", "submitted")
            found.append(Finding() if is_students else self._finding(assignment, before, hop))
            before = _chained(before, hop)
        return found

    def _finding(self, assignment: Assignment, before: str, hop: Mapping[str, Any]) -> Finding:
        signed = partial(_signed, assignment, before, hop)
        return self._worth(hop, hop.get("role"), hop.get("status"), assignment.module, signed)

    def _worth(
        self, told: Mapping[str, Any], role: object, status: object, module: str, signed: Callable[[], bytes]
    ) -> Finding:
        """Return what a signature is worth. told: has it, with its key. signed: returns what it is of."""
        public, signature = told.get(KEY), told.get(SIGNATURE)
        if not (isinstance(public, str) and isinstance(signature, str)):
            return Finding(doubt="it has no signature")
        key = self.keys.get(public)
        if key is None:
            return Finding(doubt="it is signed with a key that the course's configuration lacks")
        if not key.may_sign(role, status, module):
            why = f"the key {key.name!r} may not sign for {str(role)[:40]!r} giving {str(status)[:40]!r} in this module"
            return Finding(None, why, is_forged=True)
        if not _is_signed(public, signature, signed()):
            return Finding(None, f"the signature of the key {key.name!r} does not match", is_forged=True)
        return Finding(key.name)


class Signer:
    """A role's private key.

    Args:
        pem: The private key as `rabbitry grading keys` writes it.

    Raises:
        UsageError: It is no Ed25519 private key.
    """

    def __init__(self, pem: bytes) -> None:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            found = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise UsageError("it is not a private key without a passphrase, as `rabbitry grading keys` makes") from None
        if not isinstance(found, Ed25519PrivateKey):
            raise UsageError("it is not an Ed25519 key, as `rabbitry grading keys` makes")
        self._key = found
        self.public: str = base64.b64encode(found.public_key().public_bytes_raw()).decode()

    def sign(self, assignment: Assignment) -> Assignment:
        """Return an assignment, or the report of one, with its last hop signed; one without hops as it is."""
        hops = assignment.history
        if not hops or is_deeper_than(hops, MAX_DEPTH):
            return assignment
        before = _digest_of(hops[:-1])
        last = {name: value for name, value in hops[-1].items() if name != SIGNATURE}
        last |= {COVERS: _covers(assignment), KEY: self.public}
        if (digest := _file_digest(assignment)) is not None:
            last[HASH] = digest
        last[SIGNATURE] = base64.b64encode(self._key.sign(_signed(assignment, before, last))).decode()
        signed = type(assignment)(assignment)
        signed[HISTORY] = [*hops[:-1], last]
        return signed

    def sign_answer(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return an answer to a request for another look, signed."""
        signed = {**told, KEY: self.public}
        signed[SIGNATURE] = base64.b64encode(self._key.sign(_signed_answer(signed))).decode()
        return signed


def findings_of(signatures: Signatures | None, signer: Signer | None, confirmed: Assignment) -> list[Finding]:
    """Return what the signature of each hop of a confirmed assignment is worth, the coordinator's own included.

    Args:
        signatures: The course's keys; None if nobody signs, which finds nothing.
        signer: The key with which the confirmation is going to be signed; None for none.
        confirmed: The assignment, before it is signed.
    """
    if signatures is None:
        return []
    return signatures.findings(confirmed if signer is None else signer.sign(confirmed))


def new_key() -> tuple[bytes, str]:
    """Return a new private key as PEM, and its public key as base64."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    made = Ed25519PrivateKey.generate()
    pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, base64.b64encode(made.public_key().public_bytes_raw()).decode()


def signatures_of(table: object, modules: Sequence[str], where: str) -> Signatures | None:
    """Return the configuration of signatures; None if there is none. Raises UsageError, beginning with `where`."""
    if table is None:
        return None
    if not isinstance(table, dict) or set(table) - {"unsigned", "keys"}:
        raise UsageError(f"{where} must be a table with unsigned and keys")
    unsigned, tables = table.get("unsigned", "flag"), table.get("keys", {})
    if unsigned not in get_args(Policy):
        raise UsageError(f"{where}: unsigned is {unsigned!r}: use {' or '.join(get_args(Policy))}")
    if not isinstance(tables, dict) or not tables:
        raise UsageError(f"{where}: no keys: make one with `rabbitry grading keys`")
    keys: dict[str, Key] = {}
    for name, given in tables.items():
        key = _key_of(name, given, modules, f"{where}.keys.{name}")
        if key.public in keys:
            raise UsageError(f"{where}: the keys {keys[key.public].name!r} and {name!r} are the same")
        keys[key.public] = key
    return Signatures(keys, unsigned)


def _key_of(name: str, table: object, modules: Sequence[str], where: str) -> Key:
    if not isinstance(table, dict) or set(table) - {"public", "roles", "modules"}:
        raise UsageError(f"{where} must be a table with public, roles and modules")
    public, roles, only = table.get("public"), table.get("roles"), table.get("modules")
    if _decoded(public, "public") is None:
        raise UsageError(f"{where}: public is not a public key, as `rabbitry grading keys` prints it")
    if not isinstance(roles, list) or not roles or any(role not in [*_GIVES] for role in roles):
        raise UsageError(f"{where}: roles is {roles!r}: list some of {', '.join(_GIVES)}")
    if only is not None and (not isinstance(only, list) or any(module not in modules for module in only)):
        raise UsageError(f"{where}: modules is {only!r}: list modules of the course")
    return Key(name, str(public), tuple(roles), None if only is None else tuple(only))


def _signed(assignment: Assignment, before: str, hop: Mapping[str, Any]) -> bytes:
    """Return what is signed of a hop. before: the digest of the earlier ones."""
    told = {name: value for name, value in hop.items() if name != SIGNATURE}
    return _canonical([_CONTEXT, assignment.get(ID), before, told])


def _signed_answer(told: Mapping[str, Any]) -> bytes:
    """Return what is signed of an answer."""
    return _canonical([_ANSWER, {name: value for name, value in told.items() if name != SIGNATURE}])


def _chained(before: str, hop: Mapping[str, Any]) -> str:
    return hashlib.sha256(before.encode() + _canonical(hop)).hexdigest()


def _digest_of(hops: Sequence[Mapping[str, Any]]) -> str:
    """Return the digest of hops, oldest first."""
    before = ""
    for hop in hops:
        before = _chained(before, hop)
    return before


def _file_digest(assignment: Assignment) -> str | None:
    """Return the SHA-256 of the file; None for a report without it, or a file that can't be decoded."""
    data = assignment.file() if _has_file(assignment) else None
    return None if data is None else hashlib.sha256(data).hexdigest()


def _has_file(assignment: Assignment) -> bool:
    return SOLUTION in assignment or ANSWER in assignment


def _covers(assignment: Assignment) -> str:
    fields = {name: assignment[name] for name in COVERED if name in assignment}
    return hashlib.sha256(_canonical(fields)).hexdigest() if not is_deeper_than(fields, MAX_DEPTH) else ""


def _canonical(value: object) -> bytes:
    """Return JSON that is the same for equal values: programs reorder names, and write 8.0 as 8."""
    return _encode(_plain(value))


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    # Beyond 2^53 a float is not exact, and JSON has no integer that long everywhere.
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53
    return int(value) if is_whole else value  # type: ignore[call-overload] # it is a float


def _is_signed(public: str, signature: str, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    raw, given = _decoded(public, "public"), _decoded(signature, "signature")
    if raw is None or given is None:
        return False
    key: Ed25519PublicKey = Ed25519PublicKey.from_public_bytes(raw)
    try:
        key.verify(given, data)
    except InvalidSignature:
        return False
    return True


def _decoded(text: object, what: str) -> bytes | None:
    if not isinstance(text, str):
        return None
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if len(found) == _LENGTHS[what] else None
