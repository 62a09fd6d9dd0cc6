"""Gets Debian's kernels from its archive, with an apt configuration of its own.

Its sources, lists and downloads are in the cache, so the machine's own apt is not
changed. The mirror is this machine's own for Debian, else deb.debian.org.
"""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

CACHE = Path(
    os.environ.get("PAGESCAN_KERNELS") or Path.home() / ".cache/pagescan-kernels"
)
SUITES = (
    *("bookworm", "bookworm-updates", "bookworm-backports"),
    *("trixie", "trixie-updates", "trixie-backports", "sid"),
)
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_IMAGE = re.compile(r"linux-image-(\d+\.\d+[^-]*(?:-\d+)?-amd64)(-unsigned)?")


class UnavailableError(Exception):
    """The kernel is not available; the message gives the reason in one line."""


def run(*words: object, folder: Path | None = None, conf: Path | None = None) -> str:
    """Run a program to its end; return its output.

    Raises:
        UnavailableError: The program failed; the message has its last lines.
    """
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    if conf is not None:
        env["APT_CONFIG"] = str(conf)
    done = subprocess.run(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=env,
        cwd=folder,
        check=False,
    )
    if done.returncode:
        last = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise UnavailableError(f"{words[0]} {words[1]}: exit {done.returncode}: {last}")
    return done.stdout


class Archive:
    """The archive's kernels, and their packages."""

    def __init__(self, cache: Path = CACHE) -> None:
        """Keep all files in the given folder."""
        self.cache = cache
        self._conf = cache / "apt/apt.conf"

    @functools.cached_property
    def releases(self) -> dict[str, str]:
        """Return the package of each release (6.12.95+deb12-amd64), oldest first."""
        self._update()
        found: dict[str, str] = {}
        for name in self._apt("apt-cache", "pkgnames", "linux-image-").split():
            match = _IMAGE.fullmatch(name)
            if match and (match[1] not in found or not match[2]):
                found[match[1]] = name
        return dict(sorted(found.items(), key=lambda item: numbers(item[0])))

    def fetch(self, release: str, folder: Path) -> None:
        """Download a kernel and its modules, and unpack them.

        Raises:
            UnavailableError: The archive lists the kernel but no longer has it.
        """
        package = self.releases[release]
        wanted = [package]
        # Newer image packages are empty, and depend on the packages with files.
        for line in self._apt("apt-cache", "show", package).splitlines():
            if line.startswith("Depends:"):
                wanted += [
                    name
                    for name in re.findall(r"linux-(?:binary|modules)-[^\s,]+", line)
                    if name.endswith(release) and name not in wanted
                ]
        folder.mkdir(parents=True)
        self._apt("apt-get", "download", *wanted, folder=folder)
        for package_file in folder.glob("*.deb"):
            run("dpkg-deb", "--extract", package_file, folder)
            package_file.unlink()

    def _update(self) -> None:
        home = self._conf.parent
        stamp = home / "updated"
        if stamp.exists():
            return
        if not shutil.which("apt-get") or not os.path.exists(_KEYS):
            raise UnavailableError("needs apt-get and debian-archive-keyring")
        for name in ("lists/partial", "archives/partial", "parts"):
            (home / name).mkdir(parents=True, exist_ok=True)
        (home / "status").touch()
        (home / "sources.list").write_text(
            "".join(
                f"deb [arch=amd64 signed-by={_KEYS}] {_mirror()} {suite} main\n"
                for suite in SUITES
            )
        )
        self._conf.write_text(
            f'Dir::State "{home}";\n'
            f'Dir::State::Lists "{home}/lists";\n'
            f'Dir::State::status "{home}/status";\n'
            f'Dir::Cache "{home}";\n'
            f'Dir::Etc::SourceList "{home}/sources.list";\n'
            f'Dir::Etc::SourceParts "{home}/parts";\n'
            'APT::Architecture "amd64";\nAPT::Architectures { "amd64"; };\n'
            'APT::Sandbox::User "root";\nAcquire::Languages "none";\n'
            'Acquire::Retries "3";\n'
        )
        self._apt("apt-get", "update")
        stamp.touch()

    def _apt(self, *words: object, folder: Path | None = None) -> str:
        return run(*words, folder=folder, conf=self._conf)


def numbers(release: str) -> list[int]:
    """Return the numbers of a release, as a sort key."""
    return [int(word) for word in re.findall(r"\d+", release)]


def _mirror() -> str:
    """Return this machine's mirror for Debian, or the usual one."""
    form = "$(LABEL) $(REPO_URI)"
    try:
        lines = run("apt-get", "indextargets", "--format", form).splitlines()
    except UnavailableError:
        lines = []
    for line in lines:
        label, _, address = line.partition(" ")
        if label == "Debian" and address.rstrip("/").endswith("/debian"):
            return address
    return "http://deb.debian.org/debian"
