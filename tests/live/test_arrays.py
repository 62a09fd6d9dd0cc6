"""Batches as arrays without a copy, as frames, and in a notebook."""

import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

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


def sums(batch: Batch) -> tuple[int, int]:
    """Return the number of bytes, and of present pages."""
    counts = batch.summary()
    return counts.bytes, counts.categories["present"]


@pytest.mark.needs("pandas")
def test_pandas(batch: Batch) -> None:
    frame = batch.to_pandas()
    assert frame["start"].tolist() == batch.starts.tolist()
    present = int(frame[frame["present"]]["pages"].sum())
    assert (int(frame["bytes"].sum()), present) == sums(batch)
    labels = [item.mapping.label if item.mapping else None for item in batch.regions()]
    assert frame["mapping"].tolist() == labels
    maps = pagescan.maps(os.getpid()).to_pandas()
    assert {"start", "end", "perms", "mapping", "present"} <= set(maps.columns)
    assert maps["start"].is_monotonic_increasing


def test_rows_of_scalars(batch: Batch) -> None:
    """One named tuple per row: a table of any kind takes them as they are."""
    rows = batch.rows()
    assert [(row.start, row.end) for row in rows] == [
        (region.start, region.end) for region in batch.regions()
    ]
    maps = pagescan.maps(os.getpid(), ["[stack]"])
    [row] = maps.rows()
    assert (row.mapping, row.start, row.perms) == ("[stack]", maps[0].start, "rw-p")
    assert row.present == maps[0].counts["present"]
    assert {type(value) for value in row} <= {int, str, bool, type(None)}


@pytest.mark.needs("polars")
def test_polars(batch: Batch) -> None:
    import polars as pl

    frame = batch.to_polars()
    assert int(frame["bytes"].sum()) == sums(batch)[0]
    assert pl.DataFrame(batch).equals(frame), "by the PyCapsule interface"


@pytest.mark.needs("pyarrow")
def test_arrow_table(batch: Batch) -> None:
    import pyarrow as pa

    table = batch.to_arrow()
    assert table.num_rows == len(batch)
    assert table.column("end").to_pylist() == batch.ends.tolist()
    assert pa.table(batch).equals(table), "by the PyCapsule interface"


def test_a_library_that_is_missing(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the library, and the hint tells how to install it."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(pagescan.PagescanError, match="pandas is not installed") as told:
        batch.to_pandas()
    assert str(told.value.hint).endswith("pip install pandas")


def test_in_a_notebook(batch: Batch) -> None:
    """A cell shows one line, or the head of a table: no raw arrays."""
    assert len(repr(batch)) < 200
    assert f"{len(batch)} regions" in repr(batch)
    assert len(repr(pagescan.maps(os.getpid()))) < 80
    page = batch._repr_html_()
    assert page.count("<tr>") == 11
    assert f"{batch.starts[0]:#x}" in page
    assert "more rows" in page


def test_names_of_another_program_are_text(tmp_path: Path) -> None:
    """A name from the target is escaped in the notebook's page."""
    path = tmp_path / "<b>bold"
    path.write_bytes(bytes(4096))
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)
    mapped[0]
    page = pagescan.scan(None, ["*bold*"])._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;bold" in page
    mapped.close()


def test_a_target_by_name(tmp_path: Path) -> None:
    """A name that one process has works as target; an unknown one is an error."""
    program = tmp_path / f"only{os.getpid()}"
    shutil.copy(shutil.which("cat") or "", program)
    child = subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"ready\n")
        assert child.stdout.read(6) == b"ready\n"  # all its libraries are loaded
        assert pagescan.maps(program.name).table() == pagescan.maps(child.pid).table()
    finally:
        child.kill()
        child.communicate()
    with pytest.raises(pagescan.NoSuchTargetError, match="no process is named"):
        pagescan.scan(program.name)
