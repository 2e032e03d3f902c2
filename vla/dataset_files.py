"""Reading a dataset's files. Whatever is missing or damaged raises VlaError, and names the file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vla.contracts import VlaError


def png_frames(path: Path, column: str) -> Iterator[np.ndarray]:
    """The pictures of a parquet column, uint8 (H, W, 3). Raises VlaError, naming the file, if it is damaged."""
    import pyarrow.parquet as pq
    from PIL import Image

    try:
        for batch in pq.ParquetFile(path).iter_batches(256, columns=[column]):
            for cell in batch.column(0).to_pylist():
                if not cell["bytes"]:
                    raise ValueError(f"{column} names the picture {cell['path']}, and does not hold it")
                yield np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB"))
    except (OSError, KeyError, ValueError) as error:
        raise VlaError(f"{path} is damaged: {error}") from error


def read_parquet(path: Path, columns: list[str] | None = None) -> Any:
    """A parquet file as a pyarrow table. Raises VlaError, naming the file, if it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path).read(columns)
    except FileNotFoundError as error:
        raise VlaError(f"{path} is missing") from error
    except (pa.ArrowException, OSError) as error:
        raise VlaError(f"{path} is damaged: {str(error).splitlines()[0]}") from error


def count_rows(path: Path) -> int:
    """How many rows a parquet file has. Raises VlaError, naming the file, if it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError) as error:
        raise VlaError(f"{path} is damaged: {str(error).splitlines()[0]}") from error


def as_array(column: Any) -> np.ndarray:
    """A parquet column of scalars or of lists of fixed length as an array (N,) or (N, D)."""
    whole = column.combine_chunks()
    if not hasattr(whole.type, "value_type"):
        return whole.to_numpy(zero_copy_only=False)
    return whole.flatten().to_numpy(zero_copy_only=False).reshape(len(whole), -1)
