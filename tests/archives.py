"""Source archives as a package index has them."""

import io
import tarfile


def packed(files: dict[str, bytes]) -> bytes:
    """Return a .tar.gz of these files, by their names in it."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return sink.getvalue()
