"""JSON files that stages and others leave behind: read whole, or refused with what to do."""

import json
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.errors import BonsaiError

FORMAT = 1  # of the documents that stages write


def read_document(path: Path, made_by: str, *keys: str) -> dict[str, Any]:
    """Read a JSON document and check that it is what it should be; NaN and infinity become None.

    Args:
        path: the file.
        made_by: what writes such a file, such as "bonsai report", for the message.
        keys: the lists and objects that such a document has at the least.

    Raises:
        BonsaiError: it is missing, is not JSON, lacks what such a document has, or is of another format.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        document = json.loads(text, parse_constant=lambda _: None)
    except OSError as error:
        raise BonsaiError(f"no file at {path}: make it with `{made_by}`") from error
    except (ValueError, RecursionError) as error:
        raise BonsaiError(f"{path} is not JSON, or is cut off ({error}): make it again with `{made_by}`") from error
    missing = [key for key in keys if not isinstance(document, dict) or not isinstance(document.get(key), list | dict)]
    if missing or not isinstance(document, dict):
        lacks = f"it has no '{missing[0]}'" if missing else "it is no object"
        raise BonsaiError(f"{path} was not written by `{made_by}` ({lacks}): give the file that it wrote")
    if document.get("format", FORMAT) != FORMAT:
        raise BonsaiError(
            f"{path} has format {document['format']}, this version reads {FORMAT}: make it again with `{made_by}`"
        )
    return document
