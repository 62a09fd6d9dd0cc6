"""Runs pytest inside the machine: first swap, then the tests, then the report.

python -m tests.kernels.inside WORD...
"""

import os
import subprocess
import sys

REPORT = "/run/shared/report.xml"


def main() -> int:
    """Run the tests and return pytest's exit code."""
    with open("/proc/swaps") as swaps:
        if len(swaps.readlines()) < 2:
            subprocess.run(
                ["mkswap", "/dev/vda"], check=True, stdout=subprocess.DEVNULL
            )
            subprocess.run(["swapon", "/dev/vda"], check=True)
    os.environ["PAGESCAN_PATIENCE"] = "10"  # time limits are longer in here
    words = [
        *("-m", "pytest", "-q", "-rfE", "--tb=short", f"--junitxml={REPORT}"),
        *("-o", "junit_family=xunit1"),  # it supports properties
        "--timeout=1200",
        *("-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:hypothesispytest"),
        *sys.argv[1:],
    ]
    return subprocess.run([sys.executable, *words], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
