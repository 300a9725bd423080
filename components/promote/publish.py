"""Publish a champion's package where it is served from: its KServe manifest then names that place."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kfp_bonsai.shared.storage.manifest import MANIFEST
from kfp_bonsai.shared.storage.store import check_manifest, storage_uri, upload_folder, write_manifest

URI = re.compile(r"^(\s*storageUri: ).*$", re.MULTILINE)
TO_DO = re.compile(r"^# storageUri: .*\n", re.MULTILINE)  # what package-model says where it knew no place


def publish(package: Path, where: str) -> None:
    """Publish a package; the same one published again changes nothing.

    Raises:
        BonsaiError: as of `upload_folder`.
    """
    uri = storage_uri(where)
    if not uri:  # a folder, which a cluster reaches by a volume that has another name there
        upload_folder(package, where)
        return
    with _named(package, uri) as folder:
        upload_folder(folder, where)


@contextmanager
def _named(package: Path, uri: str) -> Iterator[Path]:
    """Yield a folder of links to the package's files, but with manifests that name this place."""
    check_manifest(package)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for path in sorted(package.rglob("*")):
            to = folder / path.relative_to(package)
            if path.is_dir():
                to.mkdir()
            elif path.parent == package and path.match("kserve-*.yaml"):
                text = path.read_text(encoding="utf-8")
                to.write_text(TO_DO.sub("", URI.sub(rf"\g<1>{uri}", text)), encoding="utf-8")
            elif path != package / MANIFEST:
                to.symlink_to(path.resolve())
        write_manifest(folder)
        yield folder
