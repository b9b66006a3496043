"""A confusion matrix as a PNG picture, written by hand: nothing in it but the pixels."""

import struct
import zlib
from pathlib import Path

CELL = 24  # pixels a side


def write_confusion(path: Path, confusion: list[list[int]]) -> None:
    """Write a grid of grey squares, darker for more; rows are the true digit, columns the answer. Zero is white."""
    most = max(max(row) for row in confusion)
    lines = []
    for counts in confusion:
        # Square roots let single mistakes be seen beside a hundred right answers.
        line = b"\0" + b"".join(bytes([255 - round(255 * (count / most) ** 0.5)]) * CELL for count in counts)
        lines += [line] * CELL
    side = CELL * len(confusion)
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header), _chunk(b"IDAT", _stored(b"".join(lines))), _chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _stored(data: bytes) -> bytes:
    """Return a zlib stream of uncompressed blocks: the same for every version of zlib."""
    blocks = [data[start : start + 65535] for start in range(0, len(data), 65535)]
    body = b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks
    )
    return b"\x78\x01" + body + struct.pack(">I", zlib.adler32(data))
