"""Locations in buckets, gs://bucket/place and s3://bucket/place, and which store answers for each."""

import re
from collections.abc import Callable

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.storage.google_bucket import GoogleBucket
from kfp_bonsai.shared.storage.objects import Bucket
from kfp_bonsai.shared.storage.s3_bucket import S3Bucket

STORES: dict[str, Callable[[str, bool], Bucket]] = {"gs://": GoogleBucket, "s3://": S3Bucket}
SCHEMES = tuple(STORES)
SOME = "gs://bucket/prefix or s3://bucket/prefix"  # as messages name them
SECRET = re.compile(r"[^/]*[:@]")  # no bucket's name has them, but s3://key:secret@bucket/place


def is_in_bucket(location: str) -> bool:
    """Return whether a location is one of these."""
    return location.startswith(SCHEMES)


def split_location(location: str) -> tuple[str, str, str]:
    """Return the scheme, the bucket and the rest of scheme://bucket/rest.

    Raises:
        BonsaiError: it names no bucket, or more than a bucket.
    """
    scheme = next(each for each in SCHEMES if location.startswith(each))
    rest = location.removeprefix(scheme)
    if SECRET.match(rest):  # told without the location, which a log would keep
        raise BonsaiError(
            f"a location at {scheme} holds a : or an @ before the bucket's first /: give {scheme}bucket/..., and keys "
            "and passwords in the environment alone"
        )
    name, _, key = rest.partition("/")
    if not name:
        raise BonsaiError(f"{location} names no bucket: give {scheme}bucket/...")
    return scheme, name, key


def open_bucket(location: str, *, write: bool = False) -> tuple[Bucket, str]:
    """Return the bucket of a location, and the place in it; nothing is asked of the server yet.

    Raises:
        BonsaiError: it names no bucket.
    """
    scheme, name, key = split_location(location)
    return STORES[scheme](name, write), key
