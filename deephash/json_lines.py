"""Values as JSON, one a line, whatever the paths in them and the encoding of the stream."""

import codecs
import json
import os
from typing import IO, Any

from .paths import utf8_path

__all__ = ["path_fields", "write_json_line"]


def write_json_line(file: IO[str], value: Any) -> None:
    """Writes a value as one line of JSON; characters that the file cannot hold are written as JSON escapes."""
    is_utf8 = codecs.lookup(getattr(file, "encoding", None) or "utf-8").name == "utf-8"
    text = json.dumps(value, ensure_ascii=not is_utf8)
    # A lone surrogate (a label from a folder's name that is not UTF-8) becomes \udcNN: JSON's own escape.
    file.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")


def path_fields(path: str) -> dict[str, str]:
    """Returns ``path`` for JSON; a path that is not UTF-8 also has its bytes, as ``path_hex``."""
    text = utf8_path(path)
    return {"path": text} if text == path else {"path": text, "path_hex": os.fsencode(path).hex()}
