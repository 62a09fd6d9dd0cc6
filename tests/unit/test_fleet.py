"""The fleet's questions, against recordings whose truth is known, on both engines."""

import csv
import io
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import pagescan
from pagescan.commands.datasets import QUESTIONS
from pagescan.model.errors import PagescanError, UsageError
from pagescan.recording.output_file import OutputFile
from pagescan.recording.records import RecordingFacts
from tests.conftest import HERE, command
from tests.synthetic import BEGUN, PAGE, TARGET, look_of
from tests.unit.test_recording_store import ANON, HEAP, MAPPINGS

pytestmark = pytest.mark.needs("pyarrow", "duckdb")


def recorded(folder: Path, host: str, pid: int, pages: int, release: str) -> None:
    """Add a recording of 10 looks: `pages` of the heap and 1 of [anon] in each."""
    path = str(folder / f"{host}-{pid}-{release}.pagescan")
    late = 1000 * len(list(folder.glob("*.pagescan")))
    facts = RecordingFacts("0.1.0", "6.18.0", host, BEGUN, 2.0)
    file = OutputFile(path, facts)
    process = {"armed_at": BEGUN, "tracked_bytes": 1, "stopped_ns": 1}
    file.add_process(0, TARGET._replace(pid=pid, name=f"p{pid}"), process)
    for at in range(10):
        written = [HEAP.start + PAGE * page for page in range(pages)]
        look = look_of([*written, ANON.start], MAPPINGS, second=late + 2.0 * at)
        file.add(0, at + 1, 2.0, look, resident=(1 << 20) + at * pages * PAGE)
    file.close()
    with pagescan.open_recording(path) as recording:
        recording.write_parquet(str(folder / "set"), release=release)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two machines; program p1 in two releases, p2 in one; a host that is a number."""
    folder = tmp_path_factory.mktemp("fleet")
    recorded(folder, "alpha", 1, 100, "1.0")
    recorded(folder, "alpha", 2, 5, "9")
    recorded(folder, "0042", 2, 7, "9")
    recorded(folder, "0042", 1, 300, "1.1")
    return folder / "set"


def test_the_truth(fleet: Path) -> None:
    with pagescan.open_fleet(str(fleet)) as asked:
        memory = asked.memory()
        assert [(row.name, row.mapping, row.bytes) for row in memory] == [
            ("p1", "[heap]", 4000 * PAGE),
            ("p2", "[heap]", 120 * PAGE),
            ("p1", "[anon]", 20 * PAGE),
            ("p2", "[anon]", 20 * PAGE),
        ]
        assert memory[0].share == pytest.approx(4000 / 4160)
        assert memory[0].rate == pytest.approx(4000 * PAGE / 40)
        assert (memory[0].hosts, memory[0].processes) == (2, 2)
        growth = asked.growth()
        assert [(row.host, row.name, row.growth) for row in growth] == [
            ("0042", "p1", 9 * 300 * PAGE),
            ("alpha", "p1", 9 * 100 * PAGE),
            ("0042", "p2", 9 * 7 * PAGE),
            ("alpha", "p2", 9 * 5 * PAGE),
        ]
        assert growth[0].seconds == 20
        assert growth[0].rate == pytest.approx(9 * 300 * PAGE / 20)
        (change,) = asked.regressions()
        assert (change.name, change.old, change.new) == ("p1", "1.0", "1.1")
        assert change.change == pytest.approx(301 / 101 - 1)
        assert asked.functions() == []


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """One session of this process for all tests: a start of Spark takes ten seconds."""
    builder = import_module("pyspark.sql").SparkSession.builder
    own = builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    yield own
    own.stop()


@pytest.mark.needs("pyspark", "java")
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("spark")
def test_both_engines_give_equal_answers(fleet: Path) -> None:
    """Equal to the last bit, apart from what adds floats: nothing does."""
    with pagescan.open_fleet(str(fleet)) as asked:
        expected = {name: asked.answer(name) for name in QUESTIONS}
    with pagescan.open_fleet(str(fleet), "spark") as asked:
        for name, rows in expected.items():
            assert asked.answer(name) == rows, name


@pytest.fixture(params=["looks", "mappings", "writers"])
def cut(
    fleet: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[Path, Path]:
    """A dataset with a file of a table that is cut, and that file: p1 on 0042."""
    folder = tmp_path / "set"
    subprocess.run(["cp", "-r", fleet, folder], check=True)
    paths = folder.glob(f"{request.param}/host=0042/*/1-*.parquet")
    (path,) = paths
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return folder, path


MEMORY_OF_THE_REST = [
    ("p1", "[heap]", 1000 * PAGE),
    ("p2", "[heap]", 120 * PAGE),
    ("p2", "[anon]", 20 * PAGE),
    ("p1", "[anon]", 10 * PAGE),
]


def test_a_cut_file(cut: tuple[Path, Path]) -> None:
    """Its looks are left out of all tables, and it is named; the rest is shown."""
    folder, path = cut
    result = command("report", folder, "--fleet", "--json")
    assert result.code == 1
    assert f"{path} is damaged: its looks are left out" in result.stderr
    memory = result.json()["memory"]
    assert [
        (row["name"], row["mapping"], row["bytes"]) for row in memory
    ] == MEMORY_OF_THE_REST
    assert [row["rate"] for row in memory][:1] == [1000 * PAGE / 20]
    for words in ((), ("--csv",)):
        result = command("report", folder, "--fleet", *words)
        assert (result.code, "p2" in result.stdout) == (1, True)
    for left in folder.glob("looks/*/*/*.parquet"):
        left.write_bytes(b"PAR1")
    with pytest.raises(PagescanError, match="has no whole file"):
        pagescan.open_fleet(str(folder))


def damage(path: Path) -> None:
    """Change bytes in the middle of a file, so that no engine can read it."""
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half - 200 : half + 200] = bytes(
        byte ^ 0xFF for byte in data[half - 200 : half + 200]
    )
    path.write_bytes(data)


@pytest.fixture(params=["looks", "mappings", "writers"])
def broken(
    fleet: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[Path, Path]:
    """A dataset with a file of a table that is damaged inside, as `cut`."""
    folder = tmp_path / "set"
    subprocess.run(["cp", "-r", fleet, folder], check=True)
    (path,) = folder.glob(f"{request.param}/host=0042/*/1-*.parquet")
    damage(path)
    return folder, path


def test_a_file_that_is_damaged_inside(broken: tuple[Path, Path]) -> None:
    """As with a cut file; a question asked before it was found is asked again."""
    folder, path = broken
    result = command("report", folder, "--fleet", "--json")
    assert result.code == 1
    assert result.stderr.splitlines() == [
        f"pagescan: {path} is damaged: its looks are left out"
    ]
    memory = result.json()["memory"]
    assert [
        (row["name"], row["mapping"], row["bytes"]) for row in memory
    ] == MEMORY_OF_THE_REST
    for other in folder.glob(f"{path.relative_to(folder).parts[0]}/*/*/*.parquet"):
        if other != path:
            damage(other)
    result = command("report", folder, "--fleet")
    assert result.code == 1
    assert f"{folder} has no whole file: see " in result.stderr


@pytest.mark.needs("pyspark", "java")
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("spark")
def test_a_file_that_is_damaged_inside_with_spark(broken: tuple[Path, Path]) -> None:
    folder, path = broken
    with pagescan.open_fleet(str(folder), "spark") as asked:
        assert len(asked.functions()) == 0
        memory = asked.memory()
        assert asked.damaged == [str(path)]
    assert [(row.name, row.mapping, row.bytes) for row in memory] == MEMORY_OF_THE_REST


@pytest.mark.needs("pyspark", "java")
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("spark")
def test_a_cut_file_with_spark(cut: tuple[Path, Path]) -> None:
    folder, path = cut
    with pagescan.open_fleet(str(folder), "spark") as asked:
        assert asked.damaged == [str(path)]
        memory = asked.memory()
    assert [(row.name, row.mapping, row.bytes) for row in memory] == MEMORY_OF_THE_REST


@pytest.mark.needs("pyspark", "java")
@pytest.mark.timeout(300)
def test_a_session_of_the_caller(fleet: Path, spark: Any) -> None:
    """It keeps its settings and views, and goes on."""
    spark.conf.set("spark.sql.shuffle.partitions", "3")
    spark.range(5).createOrReplaceTempView("looks")
    with pagescan.open_fleet(str(fleet), "spark") as asked:
        assert asked.memory()[0].bytes == 4000 * PAGE
    assert spark.conf.get("spark.sql.shuffle.partitions") == "3"
    assert spark.sql("SELECT count(*) FROM looks").collect()[0][0] == 5
    with pytest.raises(UsageError, match="Spark runs in this process already"):
        pagescan.open_fleet(str(fleet), "spark:local[7]")
    with pagescan.open_fleet(str(fleet), "spark:local[1]") as asked:
        assert len(asked.growth()) == 4
    assert spark.range(3).count() == 3


@pytest.mark.needs("pyspark", "java")
@pytest.mark.timeout(300)
def test_the_command_with_spark(fleet: Path) -> None:
    words = ("report", fleet, "--fleet", "--json")
    done = command(*words, "--engine", "spark:local[1]", timeout=250)
    assert done.code == 0, done.stderr
    duck = command(*words).json()
    spark = done.json()
    assert spark["engine"] == "spark:local[1]"
    assert {name: spark[name] for name in QUESTIONS} == {
        name: duck[name] for name in QUESTIONS
    }


def test_the_command(fleet: Path) -> None:
    document = command("report", fleet, "--fleet", "--json").json()
    assert document["memory"][0]["bytes"] == 4000 * PAGE
    one = command("report", fleet, "--fleet", "--json", "--question", "growth").json()
    assert one["memory"] is None
    assert one["growth"] == document["growth"]
    text = command("report", fleet, "--fleet").stdout
    assert "Memory that is written most" in text
    assert "+198 %" in text
    for name in QUESTIONS:
        table = command("report", fleet, "--fleet", "--csv", "--question", name).stdout
        rows = list(csv.DictReader(io.StringIO(table)))
        assert len(rows) == len(document[name])


def test_who_wrote(tmp_path: Path, fleet: Path) -> None:
    """A table of writers with a known sum, written as a dataset has it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "set"
    subprocess.run(["cp", "-r", fleet, folder], check=True)
    file = next(iter(folder.glob("writers/host=alpha/*/*.parquet")))
    schema = pq.read_schema(file)
    rows: list[dict[str, Any]] = [
        {"name": "p1", "session": "s", "function": function, "bytes": size}
        for function, size in (("fill", 4096), ("fill", 8192), (None, 4096))
    ]
    full = [dict.fromkeys(schema.names) | row for row in rows]
    pq.write_table(pa.Table.from_pylist(full, schema=schema), file)
    with pagescan.open_fleet(str(folder)) as asked:
        found = [(row.function, row.bytes, row.share) for row in asked.functions()]
    assert found == [("fill", 12288, 0.75), ("(no name)", 4096, 0.25)]


# ---- the guide ---------------------------------------------------------------------


def blocks(language: str, word: str) -> list[str]:
    """Return the blocks of the guide in a language that contain a word."""
    text = (HERE.parent / "docs/fleet.md").read_text()
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for block in found if word in block]


def run(code: str, fleet: Path) -> str:
    """Run a block beside a dataset called looks; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=fleet.parent,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.needs("pandas")
@pytest.mark.parametrize("word", ["duckdb.sql", "import pandas", "open_fleet"])
def test_the_guide(fleet: Path, word: str) -> None:
    link = fleet.parent / "looks"
    if not link.exists():
        link.symlink_to(fleet)
    found = blocks("python", word)
    assert found
    for block in found:
        assert "p1" in run(block, fleet)


@pytest.mark.needs("pyspark", "java")
@pytest.mark.timeout(300)
def test_the_guide_with_spark(fleet: Path) -> None:
    link = fleet.parent / "looks"
    if not link.exists():
        link.symlink_to(fleet)
    (block,) = blocks("python", "SparkSession")
    assert "p1" in run(block, fleet)


# ---- what is refused ---------------------------------------------------------------


def test_what_is_no_dataset(tmp_path: Path, fleet: Path) -> None:
    for place, why in (
        (tmp_path, "is no dataset of pagescan"),
        (tmp_path / "none", f"there is no {tmp_path / 'none'}"),
    ):
        result = command("report", place, "--fleet")
        assert result.code == 1
        assert why in result.stderr
    (tmp_path / "_pagescan.json").write_text('{"pagescan_dataset": 1}')
    with pytest.raises(PagescanError, match="has no look yet"):
        pagescan.open_fleet(str(tmp_path))
    folder = tmp_path / "set"
    subprocess.run(["cp", "-r", fleet, folder], check=True)
    footer = b"PAR1 and no more" + (4).to_bytes(4, "little") + b"PAR1"
    for path in folder.glob("looks/*/*/*.parquet"):  # whole at both ends only
        path.write_bytes(footer)
    result = command("report", folder, "--fleet")
    assert result.code == 1
    assert f"{folder} has no whole file: see {folder}/looks/" in result.stderr
    with pytest.raises(UsageError, match="no such engine"):
        pagescan.open_fleet(str(fleet), "hive")


@pytest.mark.parametrize(
    ("package", "engine", "extra"),
    [("duckdb", "duckdb", "fleet"), ("pyspark", "spark", "spark")],
)
def test_a_package_is_missing(
    tmp_path: Path, fleet: Path, package: str, engine: str, extra: str
) -> None:
    (tmp_path / f"{package}.py").write_text("raise ImportError('hidden')")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pagescan", "report", str(fleet)),
            *("--fleet", "--engine", engine),
        ],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{HERE.parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"needs the package {package}" in done.stderr
    assert f"hint: pip install 'pagescan[{extra}]'" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x", "--engine", "spark"], "--engine needs --fleet"),
        (["x", "--question", "growth"], "--question needs --fleet"),
        (["x", "y", "--fleet"], "--fleet asks one dataset"),
        (["x", "--fleet", "--parquet", "y"], "--fleet asks a dataset"),
        (["x", "--fleet", "--since-look", "0"], "--since-look needs --parquet"),
        (["x", "--fleet", "--release", "1"], "--release needs --parquet"),
        (["x", "--fleet", "--view", "ages"], "--view does not go with --fleet"),
        (["x", "--fleet", "--html", "y"], "--html does not go with --fleet"),
        (["x", "--fleet", "--time", "1s-2s"], "--time does not go with --fleet"),
        (["x", "--fleet", "--range", "[heap]"], "--range does not go with --fleet"),
    ],
)
def test_options_without_effect(words: list[str], message: str) -> None:
    result = command("report", *words)
    assert result.code == 2
    assert message in result.stderr


def test_no_answer_is_infinite(fleet: Path) -> None:
    with pagescan.open_fleet(str(fleet)) as asked:
        for name in QUESTIONS:
            for row in asked.answer(name):
                for value in row:
                    assert not isinstance(value, float) or math.isfinite(value)
