"""`open_fleet`: asks the fleet's questions of a dataset."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Self, TypeVar

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

_Result = TypeVar("_Result")


class Fleet:
    """A dataset of many recordings, with an engine that answers.

    Attributes:
        dataset: Its folder.
        engine: The engine: duckdb, spark or spark:MASTER.
        damaged: Files that are cut or damaged; the looks in them are left out of the
            answers. Damage inside a file is found when a question meets it.
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
        self._whole, self.damaged = pieces_of(dataset, TABLES)
        if not self._whole and not self.damaged:
            raise PagescanError(f"{dataset} has no look yet")
        self._check_whole()
        self._engine = engine_for(engine, os.fspath(dataset))
        try:
            self._without_damage(self._use)
        except BaseException:
            self._engine.close()
            raise

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
        found = self._without_damage(lambda: self._engine.ask(sql))
        return ViewTable([row(*values) for values in found])

    def _use(self) -> None:
        self._engine.use(self._whole if self.damaged else None)

    def _check_whole(self) -> None:
        if not self._whole:
            raise PagescanError(
                f"{self.dataset} has no whole file: see {self.damaged[0]}"
            )

    def _without_damage(self, action: Callable[[], _Result]) -> _Result:
        """Do something; if damaged files prevent it, do it again without them."""
        while True:
            try:
                return action()
            except PagescanError:
                if not self._leave_out():
                    raise

    def _leave_out(self) -> bool:
        """Read all files, and leave out what is damaged; return whether any is."""
        bad = set()
        for table in TABLES:
            for name in self._whole:
                path = os.path.join(self.dataset, table, name)
                if os.path.exists(path) and not self._engine.can_read(path):
                    self.damaged.append(path)
                    bad.add(name)
        self._whole = [name for name in self._whole if name not in bad]
        self._check_whole()
        if bad:
            self._use()
        return bool(bad)

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
