"""What ships with the exporter: units, alerts, a dashboard."""

import json
import re
import subprocess
from pathlib import Path

import pytest

SHARE = Path(__file__).parents[2] / "share"


@pytest.mark.needs("systemd-analyze")
def test_units(tmp_path: Path) -> None:
    """Both units are valid, and the service is hardened."""
    pagescan = tmp_path / "pagescan"
    pagescan.write_text("#!/bin/sh\n")
    pagescan.chmod(0o755)
    for name in ("pagescan-exporter.service", "pagescan-exporter.socket"):
        text = (SHARE / name).read_text().replace("/usr/bin/pagescan", str(pagescan))
        (tmp_path / name).write_text(text)
    units = [
        str(tmp_path / f"pagescan-exporter.{kind}") for kind in ("service", "socket")
    ]
    words = ["systemd-analyze", "--man=no", "verify", *units]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    words = [
        "systemd-analyze",
        "security",
        "--offline=true",
        "--threshold=30",
        units[0],
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.needs("promtool")
def test_alerts() -> None:
    """The rules are valid, and each alert fires when it should, and only then."""
    rules = SHARE / "pagescan-alerts.yml"
    words = ["promtool", "check", "rules", str(rules)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    tests = Path(__file__).with_name("pagescan-alerts.test.yml")
    words = ["promtool", "test", "rules", str(tests)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    alerts = {
        line.split()[-1] for line in rules.read_text().splitlines() if "alert:" in line
    }
    tested = {
        line.split()[-1]
        for line in tests.read_text().splitlines()
        if "alertname" in line
    }
    assert alerts == tested


def test_dashboard_asks_for_what_exists() -> None:
    """Each metric of pagescan's in the dashboard and the alerts is one of the table."""
    from pagescan.exporter.metrics import TABLE

    text = (SHARE / "pagescan-dashboard.json").read_text()
    board = json.loads(text)
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert all(
        panel.get("description") or panel["type"] == "row" for panel in board["panels"]
    )
    text += (SHARE / "pagescan-alerts.yml").read_text()
    asked = set(re.findall(r"\bpagescan_\w+", text))
    assert asked <= {metric.name for metric in TABLE}
