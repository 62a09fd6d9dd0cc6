"""The command that installs an extra, for each way to install pagescan."""

import sys
from pathlib import Path

import pytest

from pagescan.model import extras
from tests.conftest import HERE

ROOT = HERE.parent


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Pretend that this pagescan is not in its clone."""
    place = tmp_path / "lib/site-packages/pagescan/model/extras.py"
    monkeypatch.setattr(extras, "HERE", place)
    return tmp_path


def test_in_a_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the command that README gives, and a full path from elsewhere."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(ROOT / ".venv/bin/python"))
    if (ROOT / ".venv/bin/pip").exists():
        command = extras.install_command("exporter")
        assert command == ".venv/bin/pip install -e '.[exporter]'"
        assert command in (ROOT / "README.md").read_text()
    monkeypatch.chdir("/")
    assert extras.install_command("lines").endswith(f"install -e '{ROOT}[lines]'")


def test_the_pip_of_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In an active environment the name alone is enough."""
    (tmp_path / "pip").write_text("#!/bin/sh\n")
    (tmp_path / "pip").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert extras.pip() == str(tmp_path / "pip")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert extras.pip() == "pip"


def test_an_environment_without_pip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert extras.pip() == f"{tmp_path}/python3 -m pip"


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("", "'pagescan[lines]'"),
        ("file:///nowhere/x.whl", "'pagescan[lines] @ file:///nowhere/x.whl'"),
        ("https://example.org/x.git", "'pagescan[lines] @ https://example.org/x.git'"),
    ],
)
def test_installed(
    installed: Path, monkeypatch: pytest.MonkeyPatch, url: str, source: str
) -> None:
    monkeypatch.setattr(extras, "source_url", lambda: url)
    assert extras.install_command("lines").endswith(f"install {source}")
    monkeypatch.setattr(extras, "source_url", lambda: f"file://{installed}")
    assert extras.install_command("lines").endswith(f"'{installed}[lines]'")


def test_the_single_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(extras, "HERE", tmp_path / ".shiv/x/pagescan/model/extras.py")
    assert "single file" in extras.install_command("lines")


def test_the_extras_exist() -> None:
    """Each extra that an error names is one of pyproject.toml, and in README."""
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    sources = [path.read_text() for path in (ROOT / "pagescan").rglob("*.py")]
    calls = (re.findall(r'lacking\([^)]*"(\w+)"\s*\)', text) for text in sources)
    named = {name for found in calls for name in found}
    assert {"exporter", "lines"} <= named
    assert named <= project["optional-dependencies"].keys()
    readme = (ROOT / "README.md").read_text()
    for name in named:
        assert f"| `{name}` |" in readme, name
