"""The engines that answer: DuckDB in this process, or Spark on one machine or many."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

from pagescan.model.errors import PagescanError, UsageError

TABLES = ("looks", "mappings", "writers")
"""The tables that are asked."""


class Engine(Protocol):
    """Something that answers SQL about the tables of a dataset."""

    def use(self, pieces: Sequence[str] | None) -> None:
        """Take the files to read, below the folder of each table; None: all files."""

    def can_read(self, path: str) -> bool:
        """Whether all of a file can be read."""

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of an answer."""

    def close(self) -> None:
        """End it."""


def engine_for(word: str, dataset: str) -> Engine:
    """Start an engine: duckdb, spark, or spark:MASTER.

    Args:
        word: The engine.
        dataset: The folder.

    Raises:
        UsageError: There is no such engine.
        PagescanError: Its package is not installed, or it cannot start.
    """
    name, _, master = word.partition(":")
    if name == "duckdb" and not master:
        return _DuckDb(dataset)
    if name == "spark":
        return _Spark(dataset, master)
    raise UsageError(f"no such engine: {word}", hint="duckdb, spark or spark:MASTER")


def _package(name: str, extra: str) -> Any:  # noqa: ANN401 - a module without types
    try:
        return import_module(name)
    except ImportError as missing:
        package = name.partition(".")[0]
        raise PagescanError(
            f"this needs the package {package}, which is not installed",
            hint=f"pip install 'pagescan[{extra}]'",
        ) from missing


def _failed(dataset: str, error: Exception) -> PagescanError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return PagescanError(f"cannot ask {dataset}: {reason}")


class _DuckDb:
    def __init__(self, dataset: str) -> None:
        self._dataset = dataset
        duckdb = _package("duckdb", "fleet")
        self._error = duckdb.Error
        self._connection = duckdb.connect(":memory:")
        # Nothing is loaded from a network.
        self._connection.execute("SET autoinstall_known_extensions = false")

    def use(self, pieces: Sequence[str] | None) -> None:
        try:
            for table in TABLES:
                folder = os.path.join(glob.escape(self._dataset), table)
                names = ["*/*/*.parquet"]
                if pieces is not None:
                    names = [*map(glob.escape, pieces)]
                paths = (os.path.join(folder, name) for name in names)
                listed = ", ".join(map(_quoted, paths))
                self._connection.execute(_VIEW.format(table=table, paths=listed))
        except self._error as error:
            raise _failed(self._dataset, error) from error

    def can_read(self, path: str) -> bool:
        try:
            self._connection.execute(_ALL.format(_quoted(glob.escape(path)))).fetchall()
        except self._error:
            return False
        return True

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        try:
            rows: list[tuple[Any, ...]] = self._connection.execute(sql).fetchall()
        except self._error as error:
            raise _failed(self._dataset, error) from error
        return rows

    def close(self) -> None:
        self._connection.close()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


class _Spark:
    def __init__(self, dataset: str, master: str) -> None:
        self._dataset = dataset
        sql = _package("pyspark.sql", "spark")
        errors = import_module("pyspark.errors")
        py4j = import_module("py4j.protocol")
        self._errors = (errors.PySparkException, py4j.Py4JError, RuntimeError, OSError)
        try:
            self._session, self._is_ours = _spark_session(sql, master)
        except self._errors as error:
            raise _failed(dataset, error) from error

    def use(self, pieces: Sequence[str] | None) -> None:
        try:
            for table in TABLES:
                folder = os.path.abspath(os.path.join(self._dataset, table))
                paths = [folder]
                if pieces is not None:
                    paths = [os.path.join(folder, name) for name in pieces]
                reader = self._session.read.option("basePath", folder)
                reader.parquet(*paths).createOrReplaceTempView(table)
        except self._errors as error:
            raise _failed(self._dataset, error) from error

    def can_read(self, path: str) -> bool:
        try:
            rows = self._session.read.parquet(os.path.abspath(path))
            rows.selectExpr("max(hash(*))").collect()
        except self._errors:
            return False
        return True

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        try:
            return [tuple(row) for row in self._session.sql(sql).collect()]
        except self._errors as error:
            raise _failed(self._dataset, error) from error

    def close(self) -> None:
        if self._is_ours:
            self._session.stop()


def _spark_session(sql: Any, master: str) -> tuple[Any, bool]:  # noqa: ANN401 - as above
    """Return a session with views and settings of its own, and whether to stop it.

    Where the caller has a session, its engine is used, and goes on: a second one in the
    same process is impossible, and `getOrCreate` would change the caller's settings.
    """
    context = import_module("pyspark").SparkContext._active_spark_context  # noqa: SLF001 - no public name tells without making one
    if context is None:
        build = sql.SparkSession.builder.appName("pagescan")
        build = build.master(master or "local[*]")
        for key, value in _SETTINGS:
            build = build.config(key, value)
        return build.getOrCreate(), True
    if master and master != context.master:
        raise UsageError(
            f"spark:{master}: Spark runs in this process already, as {context.master}",
            hint='engine="spark" uses it',
        )
    session = sql.SparkSession(context).newSession()
    for key, value in _SETTINGS:
        if key.startswith("spark.sql."):
            session.conf.set(key, value)
    return session, False


_VIEW = """
    CREATE OR REPLACE VIEW {table} AS SELECT * FROM read_parquet(
        [{paths}], hive_partitioning = true,
        hive_types = {{'host': VARCHAR, 'date': DATE}})
"""
_ALL = "SELECT max(hash(each)) FROM read_parquet({}) AS each"
_SETTINGS: Sequence[tuple[str, str]] = (
    ("spark.ui.enabled", "false"),
    ("spark.ui.showConsoleProgress", "false"),
    ("spark.sql.shuffle.partitions", "8"),
    # A host whose name is a number stays text.
    ("spark.sql.sources.partitionColumnTypeInference.enabled", "false"),
)
