"""Runs `pagescan exporter` for tests, and reads what it serves."""

import contextlib
import http.client
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests import witness

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    """Return the samples of the text format, by name and labels."""
    from prometheus_client.parser import text_string_to_metric_families

    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def values(samples: Samples, name: str, **labels: str) -> list[float]:
    """Return the values of all samples that have a name and some labels."""
    return [
        value
        for (found, pairs), value in samples.items()
        if found == name and labels.items() <= pairs
    ]


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return the value of the only sample that has a name and some labels."""
    (one,) = values(samples, name, **labels)
    return one


@dataclass
class Exporter:
    """A running exporter.

    Attributes:
        process: It.
        said: The lines on its stderr so far.
        listens: Where it listens; "": nowhere.
    """

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)
    listens: str = ""

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.process.pid

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self.listens.rpartition(":")[2])

    def get(
        self, path: str = "/metrics", headers: dict[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """Return the answer to a request, without its body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path, headers=headers or {})
        return connection.getresponse()

    def scrape(self) -> Samples:
        """Return the samples of this moment: no scrape of the last second counts."""
        time.sleep(1.05)  # what it reads serves all scrapers for a second
        with self.get() as answer:
            assert answer.status == 200
            return parsed(answer.read().decode())

    def wait_until_said(self, pattern: str) -> str:
        """Wait for a line on its stderr, and return it."""

        def found() -> str | None:
            assert self.process.poll() is None, self.said
            lines = [line for line in self.said if re.search(pattern, line)]
            return lines[0] if lines else None

        witness.wait_for(found)
        return str(found())

    def ticks(self) -> float:
        """Return how many ticks it has made."""
        return value(self.scrape(), "pagescan_ticks_total")

    def end(self, number: int = signal.SIGINT) -> int:
        """End it by a signal, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60 * witness.PATIENCE)


@contextlib.contextmanager
def exporting(*words: object, listen: str = "127.0.0.1:0") -> Iterator[Exporter]:
    """Run an exporter until the end of the block; it must end well."""
    where = () if "--textfile" in words else ("--listen", listen)
    process = subprocess.Popen(
        [sys.executable, "-m", "pagescan", "exporter", *where, *map(str, words)],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    exporter = Exporter(process)
    reader = threading.Thread(target=_listen, args=(exporter,), daemon=True)
    reader.start()
    try:
        if where:
            line = exporter.wait_until_said(r"listening on (\S+);")
            exporter.listens = line.partition("listening on ")[2].partition(";")[0]
        yield exporter
        if process.poll() is None:
            assert exporter.end() == 0, exporter.said
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        assert process.stderr is not None
        process.stderr.close()


def _listen(exporter: Exporter) -> None:
    assert exporter.process.stderr is not None
    for line in exporter.process.stderr:
        exporter.said.append(line.rstrip())


@contextlib.contextmanager
def prometheus(folder: Path, *jobs: str) -> Iterator[int]:
    """Run a Prometheus that scrapes every second, and yield its port.

    Args:
        folder: For its configuration and its data.
        jobs: The entries of scrape_configs, in YAML.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "prometheus.yml"
    alerts = Path(__file__).parents[1] / "share/pagescan-alerts.yml"
    config.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{alerts}]\nscrape_configs:\n" + "".join(jobs)
    )
    words = [
        *("prometheus", f"--config.file={config}"),
        *(f"--storage.tsdb.path={folder}/data", "--log.level=warn"),
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder / "data", ignore_errors=True)
