"""Validate the head of a packed chunk against the size of a chunk, before it is unpacked."""

import struct
from collections.abc import Callable
from typing import Any

from zarr.storage import WrapperStore

from napari_cvdm.io.ngff_limits import METADATA

HEAD_BYTES = 18


def zstd_declared_size(head: bytes) -> int:
    """Declared size of an unpacked Zstandard frame [bytes]; 0 if none (RFC 8878, section 3.1.1)."""
    if head[:4] != b"\x28\xb5\x2f\xfd" or len(head) < HEAD_BYTES:
        return 0
    described = head[4]
    single, size = described >> 5 & 1, (described >> 5 & 1, 2, 4, 8)[described >> 6]
    start = 5 + (1 - single) + (0, 1, 2, 4)[described & 3]
    return int.from_bytes(head[start : start + size], "little")


def blosc_declared_size(head: bytes) -> int:
    """Bytes that a buffer of Blosc 1 or 2 says it unpacks to (c-blosc, README_CHUNK_FORMAT)."""
    return int(struct.unpack_from("<I", head, 4)[0]) if len(head) >= 16 and head[0] in (1, 2) else 0


def lz4_declared_size(head: bytes) -> int:
    """Bytes that a chunk of numcodecs' LZ4 says it unpacks to: its first four, signed."""
    return max(0, int(struct.unpack_from("<i", head)[0])) if len(head) >= 4 else 0


PROMISES: dict[str, Callable[[bytes], int]] = {
    "blosc": blosc_declared_size,
    "lz4": lz4_declared_size,
    "zstd": zstd_declared_size,
}


class SizeLimitedStore(WrapperStore[Any]):
    """A store whose chunks are handed on when they ask for no more than a chunk can be.

    Blosc, LZ4 and Zstandard ask for as much memory as a head says before they look at the rest.

    Parameters
    ----------
    store : zarr.abc.store.Store
    promise : callable
        One of `PROMISES`.
    most : int
        Bytes that a chunk may unpack to.
    """

    def __init__(self, store: Any, promise: Callable[[bytes], int], most: int) -> None:
        super().__init__(store)
        self.promise, self.most = promise, most

    def _with_store(self, store: Any) -> "SizeLimitedStore":
        return type(self)(store, self.promise, self.most)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """As of zarr's stores; ValueError where the head of a chunk asks for too much."""
        found = await super().get(key, prototype, byte_range)
        promised = (
            0
            if found is None or key.endswith(METADATA)
            else self.promise(found[:HEAD_BYTES].to_bytes())
        )
        if promised > self.most:
            raise ValueError(
                f"chunk {key} promises {promised:.4g} bytes, and one has at most {self.most:,}"
            )
        return found
