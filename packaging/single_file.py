"""Builds dist/pagescan.pyz: pagescan and everything it needs in one file.

    make pyz           after `make wheels`

It runs under every CPython from 3.11 to the newest that cffi has a wheel for: cffi's
own library has a name for each version, so that all of them fit into one folder. The
first start unpacks the file into ~/.shiv (SHIV_ROOT); later starts use that.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

DIST = Path("dist")
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def main() -> int:
    """Build the file, start it twice, and print where it is."""
    (wheel,) = DIST.glob("*manylinux*.whl")
    result = DIST / "pagescan.pyz"
    with tempfile.TemporaryDirectory() as scratch:
        site = Path(scratch) / "site"
        _pip("install", "--target", str(site), str(wheel))
        version = next(site.glob("cffi-*.dist-info")).name.split("-")[1]
        version = version.removesuffix(".dist")
        for python in VERSIONS:
            _pip(
                *("install", "--target", str(site), "--upgrade", "--no-deps"),
                *("--only-binary", ":all:", "--python-version", python),
                f"cffi=={version}",
            )
        words = ["-c", "pagescan", "-o", str(result), "--site-packages", str(site)]
        _run(
            *(sys.executable, "-m", "shiv", "--reproducible", "--compressed"),
            *("-p", "/usr/bin/env python3", *words),
        )
    for _ in range(2):
        _run(sys.executable, str(result), "--version")
    print(f"{result}: {result.stat().st_size >> 10} KiB")
    return 0


def _pip(*words: str) -> None:
    _run(sys.executable, "-m", "pip", "--quiet", *words)


def _run(*words: str) -> None:
    done = subprocess.run(words, check=False)
    if done.returncode:
        sys.exit(f"pyz: {' '.join(words[:4])} … failed with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
