"""Reading a dataset's files. Whatever is missing or damaged raises VlaError, and names the file."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import VlaError
from vla.host.files import regular


def png_frames(path: Path, column: str) -> Iterator[np.ndarray]:
    """The pictures of a parquet column, uint8 (H, W, 3): grey ones thrice, without their alpha.

    Raises VlaError, naming the file and the row, where one is damaged, missing or of more than 8 bits.
    """
    import pyarrow as pa
    from PIL import Image

    row = 0
    broken = (pa.ArrowException, OSError, KeyError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError)
    try:
        table = _open(path)
        if column not in table.schema_arrow.names:
            raise VlaError(f"{path} lacks the column '{column}'")
        for batch in table.iter_batches(256, columns=[column]):
            for cell in batch.column(0).to_pylist():
                if not cell or not cell["bytes"]:
                    raise ValueError(f"{column} names the picture {cell and cell['path']}, and does not hold it")
                image = Image.open(io.BytesIO(cell["bytes"]))
                if image.mode.startswith(("I", "F")):
                    raise ValueError(f"{column} has pictures of mode {image.mode} (depth?), where 8 bits are read")
                yield np.asarray(image.convert("RGB"))
                row += 1
    except broken as error:  # Pillow raises SyntaxError for a broken PNG
        raise VlaError(f"{path} is damaged in row {row}: {str(error).splitlines()[0]}") from error


def video_frames(path: Path, times: np.ndarray, dt: float) -> Iterator[np.ndarray]:
    """For each of ``times`` [s], which grow, the picture of a video that is nearest in time, uint8 (H, W, 3).

    That is how LeRobot pairs pictures with rows, whatever the video's rate and wherever its episode begins.

    Raises VlaError, naming the file, where it is damaged or has no picture within ``dt`` / 2 of one of ``times``.
    """
    import av

    rate, nearest, row = "an unknown number of", None, 0

    def shown(candidate: Any) -> np.ndarray:
        if candidate is None or abs(_seconds(candidate) - times[row]) > dt * 0.51:
            where = f"its nearest is at {_seconds(candidate):.3f} s" if candidate is not None else "it has none"
            raise VlaError(
                f"{path} has no picture for {times[row]:.3f} s: {where}; the dataset has {1 / dt:.4g} frames a second, "
                f"and the video {rate}"
            )
        return candidate.to_ndarray(format="rgb24")

    try:
        with av.open(regular(path)) as container:
            stream = container.streams.video[0]
            if stream.codec_context is None:  # PyAV would crash
                raise VlaError(f"the video {path} cannot be read: its codec is unknown, or its header is damaged")
            stream.thread_type = "AUTO"
            rate = f"{float(stream.average_rate):.4g}" if stream.average_rate else rate
            if len(times) and times[0] > 1 and stream.time_base:  # where several episodes share a file
                container.seek(int((times[0] - dt) / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise VlaError(f"the video {path} is damaged near {times[min(row, len(times) - 1)]:.3f} s")
                if frame.pts is None:
                    raise VlaError(f"the video {path} has a picture without a time")
                while row < len(times) and times[row] <= _seconds(frame):
                    before = nearest is not None and times[row] - _seconds(nearest) <= _seconds(frame) - times[row]
                    yield shown(nearest if before else frame)
                    row += 1
                if row == len(times):
                    return
                nearest = frame
            while row < len(times):
                yield shown(nearest)
                row += 1
    except (av.FFmpegError, OSError, IndexError, ValueError) as error:  # a name that is no UTF-8 is a ValueError
        raise VlaError(f"the video {path} cannot be read: {error}") from error


def _seconds(frame: Any) -> float:
    return float(frame.pts * frame.time_base)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> Any:
    """A parquet file as a pyarrow table.

    Raises VlaError, naming the file, if it is missing, is damaged (pages that have a checksum are checked) or lacks
    one of ``columns``.
    """
    import pyarrow as pa

    try:
        table = _open(path).read(columns)
    except FileNotFoundError as error:
        raise VlaError(f"{path} is missing") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise VlaError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    for name in columns or ():
        if name not in table.column_names:
            raise VlaError(f"{path} lacks the column '{name}'")
    return table


def read_columns(files: Sequence[Path], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of numbers out of parquet files, one after the other: (N,), or (N, D) where a cell holds D numbers.

    Nested cells, LeRobot's Array2D, are flattened. Raises VlaError, naming the file and the column, where a value is
    missing, is no number, or cells differ in size.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for file in files:
        table = read_parquet(file, names)
        for name in names:
            try:
                array = as_array(table.column(name))
            except ValueError as error:
                raise VlaError(f"{file}: the column '{name}' {error}") from error
            if parts[name] and parts[name][0].shape[1:] != array.shape[1:]:
                raise VlaError(f"{file}: the column '{name}' holds {array.shape[1:]} numbers, and other files don't")
            parts[name].append(array)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def read_texts(files: Sequence[Path], name: str) -> list[str]:
    """A column of texts out of parquet files. Raises VlaError, naming the file, where one is missing or is no text."""
    texts: list[str] = []
    for file in files:
        try:
            texts += read_parquet(file, [name]).column(name).to_pylist()
        except UnicodeDecodeError as error:
            raise VlaError(f"{file} is damaged: the column '{name}' is no UTF-8 text") from error
        if not all(isinstance(text, str) for text in texts):
            raise VlaError(f"{file}: the column '{name}' holds something that is no text")
    return texts


def count_rows(path: Path) -> int:
    """How many rows a parquet file has. Raises VlaError, naming the file, if it is damaged."""
    import pyarrow as pa

    try:
        return _open(path).metadata.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise VlaError(f"{path} is damaged: {str(error).splitlines()[0]}") from error


def as_array(column: Any) -> np.ndarray:
    """A parquet column of numbers, or of cells that hold equally many numbers, as an array (N,) or (N, D).

    Raises ValueError, to be read after the column's name, where that is not what it holds.
    """
    import pyarrow as pa

    whole, rows = column.combine_chunks(), len(column)
    if isinstance(whole, pa.ChunkedArray):  # of none or several chunks
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
    nested = False
    while True:
        if isinstance(whole.type, pa.BaseExtensionType):  # LeRobot's Array2D, where its library is loaded
            whole = whole.storage
        if whole.null_count and not pa.types.is_floating(whole.type):  # a float becomes NaN, which is refused later
            cell = whole.is_null().to_numpy(zero_copy_only=False).argmax()
            raise ValueError(f"lacks {whole.null_count} value(s), the first in row {cell * rows // len(whole)}")
        if not hasattr(whole.type, "value_type") or pa.types.is_dictionary(whole.type):
            break
        if not pa.types.is_fixed_size_list(whole.type):
            sizes = np.unique(np.diff(whole.offsets.to_numpy()))
            if len(sizes) > 1:
                raise ValueError(f"has cells of {sizes[0]} and of {sizes[-1]} numbers")
        whole, nested = whole.flatten(), True
    array = whole.to_numpy(zero_copy_only=False)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"is of type {whole.type}, where numbers are read")
    return array.reshape(rows, -1) if nested and rows else array


def numbered(folder: Path) -> list[Path]:
    """The parquet files in ``folder``/*/, in the order of the numbers in their names; raises VlaError for none."""
    files = list(folder.glob("*/*.parquet"))
    if not files:
        raise VlaError(f"{folder} holds no parquet file")
    return sorted(files, key=lambda file: [int(n) for n in re.findall(r"\d+", f"{file.parent.name}/{file.name}")])


def _open(path: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(regular(path), page_checksum_verification=True)
