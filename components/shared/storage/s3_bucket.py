"""S3, and servers that speak as it does (MinIO, SeaweedFS, Ceph): a bucket's verbs, and what it refuses, in words.

Credentials, the region and the server (AWS_ENDPOINT_URL) are found as AWS's own tools find them. Every body is sent
with its MD5, which the server checks. What replaces nothing, or only what was read, is written under a condition
(If-None-Match, If-Match), once the server was seen to heed it.
"""

import base64
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.storage import objects
from kfp_bonsai.shared.storage.manifest import File, file_of
from kfp_bonsai.shared.storage.objects import Changed, Damaged, Object, first_line

CONNECT_SECONDS, ANSWER_SECONDS = 10, 60
MOST_PARTS = 10_000
NO_PARTS = "NoSuchUpload"
MISSING = ("NoSuchKey", "404", "NotFound")
CONDITION = ("PreconditionFailed", "412")
BUSY = ("SlowDown", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted", "BadDigest", "IncompleteBody")
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired")
REFUSED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId", "NotSignedUp")
REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
UNKNOWN = ("NotImplemented", "501")


class S3Bucket:
    """A bucket there; its tokens are ETags."""

    def __init__(self, name: str, write: bool) -> None:
        self.name, self.write, self.place = name, write, f"s3://{name}/"
        self._heeded: set[str] = set()  # conditions that were tried
        self._anonymous = False

    @cached_property
    def _client(self) -> Any:
        """AWS's own; without credentials, public data can be read."""
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.session import Session

        options: dict[str, Any] = {
            "retries": {"total_max_attempts": 1, "mode": "standard"},  # `_ask` tries again
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": ANSWER_SECONDS,
            "request_checksum_calculation": "when_required",  # others than AWS's know not all of its checksums
            "response_checksum_validation": "when_required",
        }
        session = Session()
        session.register_component("data_loader", _loader())
        if session.get_credentials() is None:
            if self.write:
                raise BonsaiError(
                    f"{self.place}: no credentials to write with: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY (on a cluster from a Secret), or give the pod a role"
                )
            options["signature_version"], self._anonymous = UNSIGNED, True
        client = session.create_client("s3", config=Config(**options))
        client.meta.events.register("before-parse.s3", _plain)
        return client

    def _ask(self, verb: str, **given: Any) -> dict[str, Any]:
        """Make a request, until it is answered."""
        ask = getattr(self._client, verb)
        return self._patiently(lambda: ask(Bucket=self.name, **given))

    def _patiently(self, work: Any, so_far: Callable[[], int] = lambda: 0) -> Any:
        """Do what makes a request until it is answered; `so_far` says how much has arrived."""
        return objects.patience(_passes, so_far)(work)()

    def list(self, prefix: str) -> dict[str, Object]:
        """Page by page."""
        found, more = dict[str, Object](), dict[str, str]()
        while True:
            page = self._ask("list_objects_v2", Prefix=prefix, **more)
            told = [one for one in page.get("Contents", []) if not objects.is_mark(one["Key"])]
            found |= {one["Key"]: _object(one["Key"], one["Size"], one["ETag"]) for one in told}
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def stat(self, key: str) -> Object | None:
        """By a HEAD."""
        from botocore.exceptions import ClientError

        try:
            return _told(key, self._ask("head_object", Key=key))
        except ClientError as error:
            if _code(error) in MISSING:
                return None
            raise

    def get(self, key: str) -> tuple[bytes, Object] | None:
        """In one request, so that what is told of it is of this content."""
        from botocore.exceptions import ClientError

        def whole() -> tuple[bytes, Object]:
            answer = self._get(key)
            if answer["ContentLength"] > objects.SMALL_BYTES:
                raise objects.not_small(f"{self.place}{key}", answer["ContentLength"])
            return answer["Body"].read(), _told(key, answer)

        try:
            return self._patiently(whole)
        except ClientError as error:
            if _code(error) not in MISSING:
                raise
        self._ask("list_objects_v2", Prefix=key, MaxKeys=1)  # there may be no bucket
        return None

    def read(self, found: Object, first: int, last: int) -> bytes:
        """By a range of that content."""
        return self._patiently(lambda: self._get(found.name, found.token, f"bytes={first}-{last}")["Body"].read())

    def _get(self, key: str, etag: str = "", part: str = "") -> dict[str, Any]:
        """Ask for an object, once: with this ETag, if one is given, and a part of it."""
        from botocore.exceptions import ClientError

        options = ({"IfMatch": etag} if etag else {}) | ({"Range": part} if part else {})
        try:
            answer = self._client.get_object(Bucket=self.name, Key=key, **options)
        except ClientError as error:
            if etag and _code(error) in (*CONDITION, *MISSING):
                raise Changed from error
            raise
        if etag and answer["ETag"] != etag:
            raise Changed
        return answer

    def download(self, found: Object | str, path: Path) -> None:
        """From where it broke off, as often as it does."""
        from botocore.exceptions import ClientError

        key, etag = (found.name, found.token) if isinstance(found, Object) else (found, "")

        def rest() -> None:
            nonlocal etag
            place = sink.tell()
            answer = self._get(key, etag, f"bytes={place}-" if place else "")
            etag = answer["ETag"]
            if answer["ResponseMetadata"]["HTTPStatusCode"] != 206:  # all of it
                sink.seek(0)
            for block in answer["Body"].iter_chunks(1 << 20):
                sink.write(block)

        try:
            with path.open("wb") as sink:
                self._patiently(rest, sink.tell)
        except ClientError as error:
            path.unlink()
            if _code(error) not in MISSING:
                raise

    def put(self, key: str, file: File, mark: Mapping[str, str], token: Any) -> Object:
        """Large files in parts."""
        condition = self._condition(key, token, parts=file.size > objects.CHUNK_BYTES)
        return self._put(key, file, mark, condition)

    def _put(self, key: str, file: File, mark: Mapping[str, str], condition: Mapping[str, str]) -> Object:
        about = {"Key": key, "Metadata": dict(mark), "ContentType": objects.media_type(key)}
        if file.path is None:
            about["CacheControl"] = "no-store"
        with _conditional(), file.open() as stream:
            if file.size > objects.CHUNK_BYTES:
                etag = self._put_parts(about, file, stream, condition)
            else:
                content = stream.read()
                etag = self._ask("put_object", Body=content, ContentMD5=_md5(content), **about, **condition)["ETag"]
        if etag.strip('"') not in _etags(file):
            there = self.stat(key)
            if there and there.token == etag:
                return there
        return _object(key, file.size, etag, mark)

    def _put_parts(self, about: Mapping[str, Any], file: File, stream: Any, condition: Mapping[str, str]) -> str:
        from botocore.exceptions import ClientError

        key = about["Key"]
        upload = {"Key": key, "UploadId": self._ask("create_multipart_upload", **about)["UploadId"]}
        parts = []
        try:
            for number, content in enumerate(iter(lambda: stream.read(_part_bytes(file.size)), b""), 1):
                answer = self._ask("upload_part", **upload, PartNumber=number, Body=content, ContentMD5=_md5(content))
                parts.append({"ETag": answer["ETag"], "PartNumber": number})
            done = self._ask("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts}, **condition)
            return done["ETag"]
        except ClientError as error:
            there = self.stat(key) if _code(error) == NO_PARTS else None
            if there and dict(there.mark) == about["Metadata"]:  # it was put together, and the answer lost
                return there.token
            self._abort(upload)
            raise
        except BaseException:
            self._abort(upload)
            raise

    def _abort(self, upload: Mapping[str, str]) -> None:
        with suppress(Exception):  # what is left of it is seen in no listing
            self._client.abort_multipart_upload(Bucket=self.name, **upload)

    def copy(self, source: str, key: str, mark: Mapping[str, str], token: Any) -> Object:
        """By the server's own means."""
        condition = {"IfMatch": token} if token else {"IfNoneMatch": "*"}
        options = {"MetadataDirective": "REPLACE", "ContentType": objects.media_type(key), "CacheControl": "no-store"}
        origin = {"Bucket": self.name, "Key": source}
        with _conditional():
            self._ask("copy_object", Key=key, CopySource=origin, Metadata=dict(mark), **options, **condition)
        there = self.stat(key)
        if there is None:
            raise Changed
        return there

    def delete(self, found: Object | str) -> None:
        """Under the condition that it is as it was found."""
        if isinstance(found, Object):
            self._client.delete_object(Bucket=self.name, Key=found.name, IfMatch=found.token)
        else:
            self._client.delete_object(Bucket=self.name, Key=found)

    def holds(self, found: Object, file: File) -> bool:
        """By the ETag; where that is no MD5, as of encrypted objects, by reading it."""
        if found.size != file.size:
            return False
        return found.token.strip('"') in _etags(file) or self._sha256(found) == file.sha256

    def _sha256(self, found: Object) -> str:
        digest = hashlib.sha256()
        for first in range(0, found.size, objects.CHUNK_BYTES):
            digest.update(self.read(found, first, min(first + objects.CHUNK_BYTES, found.size) - 1))
        return digest.hexdigest()

    def may_pass(self, error: Exception) -> bool:
        """Where parts that were sent are no longer known."""
        return _code(error) == NO_PARTS

    def _condition(self, key: str, token: Any, parts: bool) -> dict[str, str]:
        """Return the condition of a write, once the server is known to heed it.

        One that does not know it ignores it, and of two writers the later would undo unseen what the earlier did.

        Raises:
            BonsaiError: it does not heed it.
        """
        kinds = ["If-Match" if token else "If-None-Match", *(["If-None-Match of parts"] if parts and not token else [])]
        for kind in kinds:
            if kind not in self._heeded and not self._heeds(objects.scratch_beside(key), kind):
                raise _without_conditions(f"{self.place}{key}", kind)
            self._heeded.add(kind)
        return {"IfMatch": token} if token else {"IfNoneMatch": "*"}

    def _heeds(self, scratch: str, kind: str) -> bool:
        """Return whether a write whose condition does not hold is refused."""
        about, content = {"Key": scratch}, b"to see which conditions are heeded"
        try:
            self._ask("put_object", Body=content, ContentMD5=_md5(content), **about)
            with _conditional():
                if kind == "If-Match":
                    self._ask("put_object", Body=b"", IfMatch=f'"{_hex(b"another")}"', **about)
                elif kind == "If-None-Match":
                    self._ask("put_object", Body=b"", IfNoneMatch="*", **about)
                else:
                    part = file_of(b"part")
                    self._put_parts({**about, "Metadata": {}}, part, io.BytesIO(part.content), {"IfNoneMatch": "*"})
        except Changed:
            return True
        finally:
            with suppress(Exception):
                self.delete(scratch)
        return False

    @contextmanager
    def errors(self, where: str) -> Iterator[None]:
        """By the code that the server gives."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            raise self._in_words(where, error) from error
        except Damaged as error:
            raise objects.damaged(where, error) from error
        except Changed as error:
            raise objects.changed(where) from error
        except Exception as error:
            if _passes(error):
                raise objects.unreachable(where, self.write, error) from error
            if not isinstance(error, BotoCoreError | ValueError):
                raise
            raise BonsaiError(
                f"{where} cannot be asked for ({first_line(error)}): correct the name, AWS_ENDPOINT_URL (such as "
                "http://minio:9000), AWS_PROFILE, or log in again"
            ) from error

    def _in_words(self, where: str, error: Any) -> BonsaiError:
        code, status = _code(error), _status(error)
        if code == "NoSuchBucket":
            return objects.no_bucket(where, self.name)
        if code in (*EXPIRED, "400"):  # to a HEAD it says no more
            return BonsaiError(
                f"{where}: the credentials have expired ({code}): get new ones (such as with `aws sso login`), then "
                "run again: files that are there whole are not sent again"
            )
        if code == "RequestTimeTooSkewed":
            return BonsaiError(f"{where}: this machine's clock is wrong ({code}): set it, then run again")
        if code in REGION:
            return BonsaiError(f"{where}: the bucket is in another region ({code}): set AWS_DEFAULT_REGION to its own")
        if code in REFUSED or status == 401:
            return BonsaiError(f"{where}: the credentials were refused ({code}): log in again, or set others")
        if status == 403:
            to_do, rights = ("write to" if self.write else "read"), "s3:ListBucket, s3:GetObject"
            who = "no credentials were found; set some that" if self._anonymous else "let the credentials"
            return BonsaiError(
                f"{where}: access is denied ({code}): {who} {to_do} the bucket '{self.name}' "
                f"({rights}{', s3:PutObject, s3:DeleteObject' if self.write else ''})"
            )
        if code in MISSING:
            return objects.no_bucket(where, self.name)
        if code in UNKNOWN:
            return _without_conditions(where, "If-None-Match, If-Match")
        if _passes(error):
            return objects.unreachable(where, self.write, error)
        return BonsaiError(f"{where}: the server refuses ({first_line(error)}): do what it asks for, then run again")


@contextmanager
def _conditional() -> Iterator[None]:
    """Tell a write whose condition does not hold."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if _code(error) in (*CONDITION, "NoSuchKey"):
            raise Changed from error
        raise


def _without_conditions(where: str, kind: str) -> BonsaiError:
    return BonsaiError(
        f"{where}: the server has no conditional writes ({kind}), so that of two writers one would undo the other's "
        "work, and nobody would know: take a bucket that has them, as those of AWS and MinIO, or a folder"
    )


def _plain(response_dict: dict[str, Any], **_: Any) -> None:
    """Empty an error's body that is not XML, as a gateway's: the client would tell of it instead of the status."""
    if response_dict["status_code"] >= 300 and not response_dict["body"].lstrip().startswith(b"<"):
        response_dict["body"] = b""


def _passes(error: Exception) -> bool:
    """Return whether a request may be answered when it is made again."""
    from botocore import exceptions
    from urllib3.exceptions import HTTPError

    if isinstance(error, exceptions.ClientError):
        return _code(error) in BUSY or (_status(error) in (429, 500, 502, 503, 504) and _code(error) not in EXPIRED)
    lost = exceptions.HTTPClientError | exceptions.ConnectionError | exceptions.IncompleteReadError
    return isinstance(error, lost | HTTPError | ConnectionError)


def _code(error: Exception) -> str:
    response = getattr(error, "response", None)  # others than AWS's have one of another kind
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _status(error: Any) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


@cache
def _loader() -> Any:
    """Return what has read the descriptions of AWS's services, which takes a while."""
    from botocore.loaders import create_loader

    return create_loader()


def _told(key: str, answer: Mapping[str, Any]) -> Object:
    return _object(key, answer["ContentLength"], answer["ETag"], answer.get("Metadata", {}))


def _object(key: str, size: int, etag: str, mark: Mapping[str, str] = MappingProxyType({})) -> Object:
    return Object(key, size, etag, f"etag {etag}", mark)


def _part_bytes(size: int) -> int:
    return max(objects.CHUNK_BYTES, -(-size // MOST_PARTS))


@lru_cache(maxsize=64)
def _etags(file: File) -> frozenset[str]:
    """Return the ETags that a file may have there: its MD5, and as it is sent in parts that of theirs."""
    whole, parts = _hasher(), []
    with file.open() as stream:
        while content := stream.read(_part_bytes(file.size)):
            whole.update(content)
            parts.append(_hasher(content).digest())
    return frozenset({whole.hexdigest(), f"{_hex(b''.join(parts))}-{len(parts)}"})


def _hasher(content: bytes = b"") -> Any:
    return hashlib.md5(content, usedforsecurity=False)


def _hex(content: bytes) -> str:
    return _hasher(content).hexdigest()


def _md5(content: bytes) -> str:
    return base64.b64encode(_hasher(content).digest()).decode()
