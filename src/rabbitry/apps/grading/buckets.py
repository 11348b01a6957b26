"""Kept files in a bucket of S3-compatible storage, named by a URL: s3://BUCKET/PREFIX?endpoint=URL&region=NAME."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from rabbitry._installing import missing
from rabbitry.apps.grading.exceptions import FilesError
from rabbitry.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEYS: Final = {"endpoint", "region"}
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,254}")
_CONNECT_SECONDS: Final = 10
_READ_SECONDS: Final = 60
_ATTEMPTS: Final = 3
_MISSING: Final = 404
_BEYOND: Final = 416
"""Statuses of HTTP: there is no such object, or it ends before the range that was asked for."""
_MALFORMED: Final = (
    "the place of files is not s3://BUCKET/PREFIX?endpoint=URL&region=NAME; it is not shown, since it may hold keys"
)


class Bucket:
    """A bucket. Several threads may use it at once."""

    def __init__(self, client: Any, bucket: str, prefix: str, place: str) -> None:
        self._client = client  # of boto3, which brings no types
        self._bucket = bucket
        self._prefix = prefix
        self._place = place
        self._is_used = False

    @classmethod
    def at(cls, url: str) -> Self:
        """Return the bucket of a URL. Nothing is sent yet. The keys are found as by all of AWS's tools.

        Raises:
            UsageError: The URL is malformed or has keys, or boto3 is not installed.
        """
        bucket, prefix, endpoint, region = _parsed(url)
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ModuleNotFoundError as error:
            raise UsageError(missing("keeping files in a bucket", error, "s3")) from error
        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            # Storages other than Amazon's have names for buckets, not for hosts, and not all know checksums.
            s3={"addressing_style": "auto" if endpoint is None else "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            # A session for each: the shared one of `boto3.client` must not be used by several threads at once.
            client = boto3.Session().client("s3", endpoint_url=endpoint, region_name=region, config=config)
        except (BotoCoreError, ValueError) as error:
            raise UsageError(f"the place of files {url!r} can't be used: {error}") from error
        return cls(client, bucket, f"{prefix}/" if prefix else "", url)

    def __str__(self) -> str:
        return self._place

    def size(self, name: str) -> int | None:
        """Return the bytes of an object; None if it is not there. Raises FilesError."""
        found = self._ask("head_object", name)
        return None if found is None else int(found["ContentLength"])

    def put(self, name: str, data: bytes) -> None:
        """Store an object: it is durable when the storage answers. Raises FilesError."""
        if self._ask("put_object", name, Body=data) is None:
            raise FilesError(f"the bucket {self._bucket!r} of {self._place} does not exist: make it")

    def get(self, name: str, most: int, offset: int = 0) -> bytes | None:
        """Return the `most` bytes of an object after the first `offset`; None if it is not there. Raises FilesError."""
        from botocore.exceptions import BotoCoreError

        if most == 0:  # no range is empty
            return None if self.size(name) is None else b""
        # A storage refuses a range that begins at the object's end or beyond, with 416.
        try:
            found = self._ask("get_object", name, Range=f"bytes={offset}-{offset + most - 1}")
        except FilesError as error:
            if _status(error.__cause__) == _BEYOND:
                return b""
            raise
        if found is None:
            return None
        try:
            with found["Body"] as body:
                data: bytes = body.read(most)
        except BotoCoreError as error:
            raise FilesError(f"{name} of {self._place} can't be read: {error}") from error
        return data

    def listed(self, folder: str) -> dict[str, int]:
        """Return the bytes of the objects in a folder by their names: a request for each 1,000. Raises FilesError."""
        sizes: dict[str, int] = {}
        more: dict[str, str] = {}
        while True:
            found = self._ask("list_objects_v2", "", Prefix=f"{self._prefix}{folder}/", **more)
            if found is None:
                return sizes
            objects = found.get("Contents", ())
            sizes |= {one["Key"].removeprefix(self._prefix): int(one["Size"]) for one in objects}
            if not found.get("IsTruncated"):
                return sizes
            more = {"ContinuationToken": found["NextContinuationToken"]}

    def is_unused(self) -> bool:
        """Return whether there is nothing below the prefix. Raises FilesError."""
        if self._is_used:
            return False
        found = self._ask("list_objects_v2", "", Prefix=self._prefix, MaxKeys=1)
        self._is_used = found is not None and bool(found.get("Contents"))
        return not self._is_used

    def _ask(self, operation: str, name: str, **more: object) -> Mapping[str, Any] | None:
        """Return the answer to a request for an object, or about all; None if object or bucket are not there."""
        from botocore.exceptions import BotoCoreError, ClientError

        key = {"Key": self._prefix + name} if name else {}
        try:
            found: Mapping[str, Any] = getattr(self._client, operation)(Bucket=self._bucket, **key, **more)
        except ClientError as error:
            if _status(error) == _MISSING:
                return None
            raise FilesError(f"the storage {self._place} refused {name or 'to list it'}: {error}") from error
        except BotoCoreError as error:
            raise FilesError(f"the storage {self._place} can't be used: {error}") from error
        return found


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status with which the storage answered; None if it did not answer."""
    from botocore.exceptions import ClientError

    return error.response["ResponseMetadata"]["HTTPStatusCode"] if isinstance(error, ClientError) else None


def _parsed(url: str) -> tuple[str, str, str | None, str | None]:
    """Return a URL's bucket, prefix, endpoint and region.

    Raises:
        UsageError: The URL is malformed or has keys; therefore the text does not show it.
    """
    try:
        parts = urlsplit(url)
        given = parse_qs(parts.query, keep_blank_values=True)
    except ValueError as error:
        raise UsageError(_MALFORMED) from error
    endpoint, region = (given.get(name, [None])[0] for name in ("endpoint", "region"))
    if "@" in parts.netloc or "@" in (endpoint or ""):
        raise UsageError(
            "the place of files has keys in its URL: put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    is_single = all(len(values) == 1 and values[0] for values in given.values())
    # A presigned URL has its keys in the query.
    is_plain = not parts.fragment and not {"?", "#"} & set(endpoint or "")
    if not _BUCKET.fullmatch(parts.netloc) or given.keys() - _KEYS or not is_single or not is_plain:
        raise UsageError(_MALFORMED)
    return parts.netloc, parts.path.strip("/"), endpoint, region
