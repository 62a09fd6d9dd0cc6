"""The columns of a batch become numpy and pyarrow arrays without a copy."""

import os

import pytest

import pagescan
from pagescan.model.batch import Batch


@pytest.fixture
def batch() -> Batch:
    return pagescan.scan(os.getpid())


@pytest.mark.needs("numpy")
def test_numpy(batch: Batch) -> None:
    import numpy as np

    for column in (batch.starts, batch.ends, batch.categories):
        address, count = column.buffer_info()
        for view in (np.frombuffer(column, dtype="u8"), np.asarray(column)):
            assert view.__array_interface__["data"][0] == address
            assert view.dtype == np.dtype("u8")
            assert len(view) == count == len(batch)
            assert view.tolist() == column.tolist()
    assert np.asarray(batch.owners).dtype == np.dtype("i8")
    lengths = np.asarray(batch.ends) - np.asarray(batch.starts)
    assert int(lengths.sum()) == batch.summary().bytes


@pytest.mark.needs("pyarrow")
def test_pyarrow(batch: Batch) -> None:
    import pyarrow as pa

    arrays = []
    for column in (batch.starts, batch.ends, batch.categories):
        address, count = column.buffer_info()
        buffer = pa.py_buffer(column)
        assert buffer.address == address
        array = pa.Array.from_buffers(pa.uint64(), count, [None, buffer])
        assert array.buffers()[1].address == address
        arrays.append(array)
    before = pa.total_allocated_bytes()
    table = pa.RecordBatch.from_arrays(arrays, ["start", "end", "categories"])
    assert pa.total_allocated_bytes() == before
    assert table.num_rows == len(batch)
    assert table.column("start").to_pylist() == batch.starts.tolist()
    assert table.column(1).buffers()[1].address == batch.ends.buffer_info()[0]
