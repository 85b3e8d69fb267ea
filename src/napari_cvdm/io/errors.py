"""What goes wrong with files, in one line each."""

import errno
from pathlib import Path

# numpy.tofile reports a short write without any errno, so None belongs to the full disk, too.
FULL_DISK = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


class ImageFileError(ValueError):
    """A file or an image that cannot be used: what was given, what is allowed, what to try."""


def one_line(error: BaseException | str, limit: int = 160) -> str:
    """The message of another library as one short line.

    Parameters
    ----------
    error : BaseException or str
        What was raised or logged.
    limit : int
        Longest line [characters].

    Returns
    -------
    str
        The first `limit` characters, white space collapsed; the name of the exception if it has no
        message.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def writing_error(path: Path, error: OSError) -> ImageFileError:
    """The error to raise when `path` could not be written because of `error`.

    Parameters
    ----------
    path : Path
        The file or folder that was asked for.
    error : OSError
        What the operating system said.

    Returns
    -------
    ImageFileError
        One line with advice.
    """
    if error.errno in FULL_DISK or error.errno is None:
        return ImageFileError(
            f"{path}: the disk is full, nothing was left there. Free some space or choose a folder "
            "on another disk."
        )
    return ImageFileError(
        f"{path}: cannot be written ({error.strerror or one_line(error)}). Choose a folder that "
        "you may write to."
    )
