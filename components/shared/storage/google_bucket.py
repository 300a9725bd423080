"""Google Cloud Storage: a bucket's verbs, and what its server refuses, in words.

STORAGE_EMULATOR_HOST names another server than Google's, which is then used without credentials.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.storage import objects
from kfp_bonsai.shared.storage.manifest import File
from kfp_bonsai.shared.storage.objects import Changed, Damaged, Object, first_line

FINAL = (401, 403, 412)  # answers that another try does not change


class GoogleBucket:
    """A bucket there; its tokens are generations."""

    def __init__(self, name: str, write: bool) -> None:
        self.name, self.write, self.place = name, write, f"gs://{name}/"

    @cached_property
    def _bucket(self) -> Any:
        """Google's own; without credentials, public data can be read."""
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
        from google.cloud import storage

        try:
            client = storage.Client(project=None)
        except DefaultCredentialsError as error:
            if self.write:
                raise BonsaiError(
                    f"{self.place}: no credentials to write with: log in with `gcloud auth application-default "
                    "login`, or give the pod a service account (Workload Identity)"
                ) from error
            client = storage.Client.create_anonymous_client()
        except TransportError:  # the network, see `errors`
            raise
        except (GoogleAuthError, ValueError, OSError) as error:
            raise BonsaiError(
                f"{self.place}: the credentials cannot be used ({first_line(error)}): log in again"
            ) from error
        return client.bucket(self.name)

    def list(self, prefix: str) -> dict[str, Object]:
        """As the client pages through them."""
        found = self._bucket.client.list_blobs(self._bucket, prefix=prefix, retry=_patience())
        return {blob.name: _told(blob) for blob in found if not objects.is_mark(blob.name)}

    def stat(self, key: str) -> Object | None:
        """By its metadata."""
        blob = self._bucket.get_blob(key, retry=_patience())
        return blob and _told(blob)

    def get(self, key: str) -> tuple[bytes, Object] | None:
        """Its metadata, then the content of that generation."""
        from google.api_core.exceptions import NotFound

        where = f"{self.place}{key}"
        for _ in range(objects.TRANSFERS):  # it may be replaced between the two requests
            found = self.stat(key)
            if found is None:
                listed = self._bucket.client.list_blobs(self._bucket, prefix=key, max_results=1, retry=_patience())
                next(iter(listed), None)  # there may be no bucket
                return None
            if found.size > objects.SMALL_BYTES:
                raise objects.not_small(where, found.size)
            blob = self._bucket.blob(key, generation=found.token)
            try:
                content = objects.transfer(self, partial(blob.download_as_bytes, checksum="crc32c", retry=_patience()))
                return content, found
            except NotFound:
                continue
        raise BonsaiError(f"{where} keeps changing while it is read: look what writes there, then run again")

    def read(self, found: Object, first: int, last: int) -> bytes:
        """By a range of that generation."""
        from google.api_core.exceptions import NotFound

        blob = self._bucket.blob(found.name, generation=found.token)
        try:
            return blob.download_as_bytes(start=first, end=last, checksum=None, retry=_patience())
        except NotFound as error:
            raise Changed from error

    def download(self, found: Object | str, path: Path) -> None:
        """With its checksum, unless it is packed."""
        from google.api_core.exceptions import NotFound

        if isinstance(found, Object):
            blob = self._bucket.blob(found.name, generation=found.token)
            with path.open("wb") as sink:
                try:
                    blob.download_to_file(sink, checksum=None, raw_download=True, retry=_while_it_comes(sink))
                except NotFound as error:
                    raise Changed from error
            return
        blob = self._bucket.blob(found)

        def whole() -> None:
            with path.open("wb") as sink:
                blob.download_to_file(sink, checksum="crc32c", retry=_while_it_comes(sink))

        try:
            objects.transfer(self, whole)
        except NotFound:
            path.unlink(missing_ok=True)

    def put(self, key: str, file: File, mark: Mapping[str, str], token: Any) -> Object:
        """Resumable, where it is large."""
        from google.api_core.exceptions import NotFound, PreconditionFailed
        from google.cloud.storage.exceptions import DataCorruption

        blob = self._blob(key, mark, file.path is None)
        options = {"size": file.size, "content_type": objects.media_type(key), "if_generation_match": token or 0}
        try:
            with file.open() as stream:
                blob.upload_from_file(stream, checksum="crc32c", retry=_patience(), **options)
        except PreconditionFailed as error:
            raise Changed from error
        except NotFound as error:
            if token:
                raise Changed from error
            raise
        except DataCorruption as error:  # Google's client has removed what arrived
            raise Damaged(first_line(error), None) from error
        return _told(blob)

    def copy(self, source: str, key: str, mark: Mapping[str, str], token: Any) -> Object:
        """By a rewrite."""
        from google.api_core.exceptions import PreconditionFailed

        blob = self._blob(key, mark, True)
        blob.content_type = objects.media_type(key)
        try:
            blob.rewrite(self._bucket.blob(source), if_generation_match=token or 0, retry=_patience())
        except PreconditionFailed as error:
            raise Changed from error
        return _told(blob)

    def delete(self, found: Object | str) -> None:
        """Of that generation, where one was found."""
        if isinstance(found, Object):
            self._bucket.blob(found.name).delete(if_generation_match=found.token, retry=None)
        else:
            self._bucket.blob(found).delete(retry=None)

    def holds(self, found: Object, file: File) -> bool:
        """By the checksum that the server has of it."""
        return (found.size, found.crc32c) == (file.size, file.crc32c)

    def may_pass(self, error: Exception) -> bool:
        """Where an upload was forgotten, or its answer makes no sense."""
        from google.api_core.exceptions import GoogleAPICallError
        from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

        broken = isinstance(error, GoogleAPICallError | DataCorruption | InvalidResponse | ValueError)
        return broken and getattr(error, "code", None) not in FINAL

    @contextmanager
    def errors(self, where: str) -> Iterator[None]:
        """By the client's exceptions."""
        import requests
        import urllib3
        from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, Unauthorized
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

        role = "roles/storage.objectUser" if self.write else "roles/storage.objectViewer"
        try:
            yield
        except NotFound as error:
            raise objects.no_bucket(where, self.name) from error
        except (Forbidden, Unauthorized) as error:
            raise BonsaiError(
                f"{where}: access is denied ({int(error.code)}): log in with `gcloud auth application-default login`, "
                f"or let the pod's service account {'write to' if self.write else 'read'} the bucket '{self.name}' "
                f"({role})"
            ) from error
        except GoogleAuthError as error:
            if any(isinstance(each, TransportError) for each in (error, error.__cause__)):  # nobody was reached
                raise objects.unreachable(where, self.write, error) from error
            raise BonsaiError(f"{where}: the credentials were refused ({first_line(error)}): log in again") from error
        except (DataCorruption, InvalidResponse, Damaged) as error:
            raise objects.damaged(where, error) from error
        except Changed as error:
            raise objects.changed(where) from error
        except (GoogleAPIError, requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError) as error:
            raise objects.unreachable(where, self.write, error) from error

    def _blob(self, key: str, mark: Mapping[str, str], small: bool) -> Any:
        """Return an object that is to be written; a small one, which may be replaced, is in nobody's cache."""
        blob = self._bucket.blob(key, chunk_size=objects.CHUNK_BYTES)
        blob.metadata = dict(mark)
        if small:
            blob.cache_control = "no-store"
        return blob


def _patience() -> Any:
    """Return how requests are tried again: on 429, 5xx and lost connections."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    delays = DEFAULT_RETRY.with_delay(objects.FIRST_DELAY_SECONDS, objects.LONGEST_DELAY_SECONDS, 2.0)
    return delays.with_timeout(objects.GIVE_UP_SECONDS)


def _while_it_comes(sink: IO) -> Any:
    """Return how a download goes on where it broke off: on the same, while more of it arrives."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return objects.patience(DEFAULT_RETRY._predicate, sink.tell)


def _told(blob: Any) -> Object:
    version = f"md5 {blob.md5_hash}" if blob.md5_hash else f"generation {blob.generation}"
    packed = bool(blob.content_encoding)
    return Object(blob.name, int(blob.size), blob.generation, version, blob.metadata or {}, blob.crc32c, packed)
