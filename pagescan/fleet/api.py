"""`open_fleet`: asks the fleet's questions of a dataset."""

from __future__ import annotations

import os
from typing import Any, Self

from pagescan.fleet.engines import TABLES, engine_for
from pagescan.fleet.files import pieces_of
from pagescan.fleet.questions import (
    QUESTIONS,
    FunctionRow,
    GrowthRow,
    MemoryRow,
    RegressionRow,
)
from pagescan.model.errors import PagescanError
from pagescan.recording.dataset import check_dataset
from pagescan.recording.tables import ViewTable


class Fleet:
    """A dataset of many recordings, with an engine that answers.

    Attributes:
        dataset: Its folder.
        engine: The engine: duckdb, spark or spark:MASTER.
        damaged: Files that are cut; the looks in them are left out of all answers.
    """

    def __init__(self, dataset: str, engine: str) -> None:
        """Start the engine; `open_fleet` does it."""
        self.dataset = dataset
        self.engine = engine
        if not os.path.exists(dataset):
            raise PagescanError(
                f"there is no {dataset}",
                hint=f"pagescan report FILE --parquet {dataset} makes it",
            )
        if not check_dataset(dataset):
            raise PagescanError(
                f"{dataset} is no dataset of pagescan",
                hint="pagescan report FILE --parquet DIR makes one, in a new folder",
            )
        whole, self.damaged = pieces_of(dataset, TABLES)
        if not whole:
            if not self.damaged:
                raise PagescanError(f"{dataset} has no look yet")
            raise PagescanError(f"{dataset} has no whole file: see {self.damaged[0]}")
        pieces = whole if self.damaged else None
        self._engine = engine_for(engine, os.fspath(dataset), pieces)

    def memory(self) -> ViewTable[MemoryRow]:
        """Return which memory of which programs is written most."""
        rows: ViewTable[MemoryRow] = self.answer("memory")
        return rows

    def functions(self) -> ViewTable[FunctionRow]:
        """Return which functions write most, where recordings have writers."""
        rows: ViewTable[FunctionRow] = self.answer("functions")
        return rows

    def growth(self) -> ViewTable[GrowthRow]:
        """Return which processes grow most."""
        rows: ViewTable[GrowthRow] = self.answer("growth")
        return rows

    def regressions(self) -> ViewTable[RegressionRow]:
        """Return how the writes of programs changed from release to release."""
        rows: ViewTable[RegressionRow] = self.answer("regressions")
        return rows

    def answer(self, question: str) -> Any:  # noqa: ANN401 - each has its own rows
        """Return the answer to a question by its name.

        Raises:
            PagescanError: The dataset cannot be read.
        """
        sql, row = QUESTIONS[question]
        return ViewTable([row(*values) for values in self._engine.ask(sql)])

    def close(self) -> None:
        """End the engine."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_fleet(dataset: str, engine: str = "duckdb") -> Fleet:
    """Open a dataset of many recordings, to ask about all of them.

    Args:
        dataset: The folder that `report --parquet` has filled.
        engine: duckdb; spark on this machine, or that of the caller's Spark session,
            which goes on; or spark:MASTER.

    Raises:
        UsageError: There is no such engine.
        PagescanError: The folder is no dataset, or the engine is not installed or
            cannot read it.
    """
    return Fleet(dataset, engine)
