"""Reading of files that hold a key or a password: only their owner may read them."""

import os
import stat
from pathlib import Path

_FORBIDDEN = 0o077
_LONGEST = 64 << 10  # bytes; a longer file is something else


class SecretFileError(ValueError):
    """The file gives no secret; the text is for users."""


def secret_text(path: Path, wanted: str, encoding: str = "ascii") -> str:
    """The text of a secret file; `wanted` says what it should hold. Raises SecretFileError."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = b"" if stat.S_IMODE(mode) & _FORBIDDEN else file.read(_LONGEST + 1)
    except FileNotFoundError:
        raise SecretFileError(f"{path} does not exist; put {wanted}, mode 0600") from None
    except OSError as problem:
        raise SecretFileError(f"{path} cannot be read: {problem.strerror}") from None
    if (permissions := stat.S_IMODE(mode)) & _FORBIDDEN:
        raise SecretFileError(f"{path} is open to others (mode {permissions:04o}); run: chmod 600 {path}")
    if len(data) > _LONGEST:
        raise SecretFileError(f"{path} has more than {_LONGEST} bytes; put {wanted}")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        name = {"ascii": "ASCII", "utf-8": "UTF-8"}.get(encoding, encoding)
        raise SecretFileError(f"{path} is not {name} text; put {wanted}") from None


def one_line(text: str, origin: str) -> str:
    """The one line of a secret's text. Raises SecretFileError naming its origin."""
    lines = text.splitlines()
    if len(lines) != 1:
        raise SecretFileError(f"{origin} has {len(lines)} lines; the secret is one line")
    return lines[0]
