"""Builds wheels that need no compiler, from the sdist: manylinux and musllinux.

    make wheels        dist/*.whl and the sdist, checked

The C compiler is zig's clang, which PyPI ships with the headers of every libc: the
compiler of this machine would link against a newer glibc than manylinux_2_28 has. Each
wheel serves every CPython from 3.11 on (abi3). auditwheel names the oldest systems
that a wheel runs on, abi3audit looks for symbols outside the stable ABI, and the
manylinux wheel then runs `pagescan demo` in an environment without a compiler. The
musllinux wheel is checked and not run: PyPI has no Python for musl.

Needs: the `wheels` extra; the musl library (Debian: apt install musl).
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import ziglang

DIST = Path("dist")
BIN = Path(sys.executable).parent
ZIG = Path(ziglang.__file__).parent / "zig"
MUSL = Path("/lib") / f"{os.uname().machine}-linux-musl" / "libc.so"
MUSL_NAME = f"libc.musl-{os.uname().machine}.so.1"  # as Alpine and auditwheel name it
BUILD = (sys.executable, "-m", "build")
SYSTEMS = {"manylinux_2_28": "gnu.2.28", "musllinux_1_2": "musl"}


def main() -> int:
    """Build, check and try the wheels; the last lines of output name the files."""
    if not MUSL.exists():
        sys.stderr.write(f"wheels: missing: {MUSL}\n")
        sys.stderr.write("hint: apt install musl    (Debian, Ubuntu)\n")
        return 1
    shutil.rmtree(DIST, ignore_errors=True)
    run(*BUILD, "--sdist", "--outdir", str(DIST), ".", quiet=True)
    (sdist,) = DIST.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as scratch:
        for system, libc in SYSTEMS.items():
            wheel = build(sdist, libc, Path(scratch) / system)
            audit(wheel, system, Path(scratch) / system)
        wheels = sorted(DIST.glob("*.whl"))
        run(str(BIN / "abi3audit"), "--strict", *map(str, wheels))
        try_without_compiler(Path(scratch))
    for wheel in wheels:
        tried = "tried" if "manylinux" in wheel.name else "checked, not tried"
        print(f"{wheel}: {tried}")
    return 0


def build(sdist: Path, libc: str, folder: Path) -> Path:
    """Build the wheel from the sdist with zig's compiler and headers, and return it."""
    folder.mkdir()
    compiler = folder / "cc"
    target = f"{os.uname().machine}-linux-{libc}"
    compiler.write_text(f'#!/bin/sh\nexec "{ZIG}" cc -target {target} "$@"\n')
    compiler.chmod(0o755)
    environment = {**os.environ, "CC": str(compiler), "LDSHARED": f"{compiler} -shared"}
    words = ["wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(sdist)]
    run(sys.executable, "-m", "pip", *words, environment=environment)
    (wheel,) = folder.glob("*.whl")
    return with_musls_name(wheel) if libc == "musl" else wheel


def with_musls_name(wheel: Path) -> Path:
    """Return the wheel with musl's C library under the name that musl systems use."""
    tree = wheel.parent / "tree"
    packed = wheel.parent / "packed"
    shutil.unpack_archive(wheel, tree, "zip")
    (shim,) = tree.rglob("_shim*.so")
    words = ["--replace-needed", "libc.so", MUSL_NAME, str(shim)]
    run(str(BIN / "patchelf"), *words)
    packed.mkdir()
    run(sys.executable, "-m", "wheel", "pack", "--dest-dir", str(packed), str(tree))
    (renamed,) = packed.glob("*.whl")
    return renamed


def audit(wheel: Path, system: str, folder: Path) -> None:
    """Put a wheel into dist/, with the tag of the oldest system that it runs on."""
    libraries = folder / "libraries"
    libraries.mkdir()
    (libraries / MUSL_NAME).symlink_to(MUSL)
    tag = f"{system}_{os.uname().machine}"
    # auditwheel knows only the tags of this machine's libc; it finds musl's own.
    musl = system.startswith("musl")
    words = ["--ldpaths", str(libraries)] if musl else ["--plat", tag]
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # auditwheel looks for patchelf
    run(
        *(str(BIN / "auditwheel"), "repair", *words),
        *("--wheel-dir", str(DIST), str(wheel)),
        environment={**os.environ, "PATH": path},
    )
    if not list(DIST.glob(f"*{tag}*.whl")):
        sys.exit(f"wheels: {wheel.name} is not for {system}")


def try_without_compiler(scratch: Path) -> None:
    """Install the manylinux wheel where no compiler can be found, and run the demo."""
    (wheel,) = DIST.glob("*manylinux*.whl")
    home = scratch / "fresh"
    run(sys.executable, "-m", "venv", str(home))
    environment = {**os.environ, "PATH": str(home / "bin"), "CC": "/nonexistent/cc"}
    python = str(home / "bin" / "python")
    words = ["install", "--quiet", "--only-binary", ":all:", str(wheel)]
    run(python, "-m", "pip", *words, environment=environment)
    run(str(home / "bin" / "pagescan"), "demo", environment=environment)
    if not (home / "share" / "man" / "man1" / "pagescan.1").exists():
        sys.exit("wheels: the manual page is not where man looks for it")


def run(
    *words: str, environment: dict[str, str] | None = None, quiet: bool = False
) -> None:
    """Run a command to its end; exit if it fails. quiet: Drop its output."""
    output = subprocess.DEVNULL if quiet else None
    done = subprocess.run(words, env=environment, stdout=output, check=False)
    if done.returncode:
        sys.exit(f"wheels: {' '.join(words[:4])} … failed with {done.returncode}")


if __name__ == "__main__":
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        sys.exit("wheels: a free-threaded Python has no stable ABI")
    sys.exit(main())
