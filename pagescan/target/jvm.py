"""Asks a Java virtual machine what its memory is for: jcmd PID VM.info.

It disturbs the target: a thread of it answers, Java code stops for a moment, and the
machine keeps one thread more, for later questions. So it is done only if a user wants.

jcmd sends SIGQUIT to a machine that does not listen yet. That ends a process that does
not catch it: a machine that is just starting, or a program that only maps libjvm.so.
"""

import os
import re
import shutil
import signal
import subprocess  # noqa: TID251 - it starts jcmd, where a user asks for that
from collections.abc import Iterator

from pagescan.model.errors import PagescanError, TargetError
from pagescan.model.memory import Range
from pagescan.target.label_rules import Told
from pagescan.target.living import memory_dir
from pagescan.target.process import Target, read_status

_PATIENCE = 10.0  # seconds
_HEX = r"0x([0-9a-f]+)"
_GENERATION = "(?:garbage-first heap|generation|PSYoungGen|ParOldGen|PSOldGen)"
# The lines of VM.info, as HotSpot of Java 17 writes them.
_LINES = (
    (rf"{_GENERATION} .*\[{_HEX},(?: 0x[0-9a-f]+,)? {_HEX}\)", "[java heap]"),
    (rf"Compressed class space mapped at: {_HEX}-{_HEX}", "[java class space]"),
    (rf"Card table byte_map: \[{_HEX},\s*{_HEX}\]", "[java card table]"),
    (rf"(?:Prev|Next|Mark) Bits: \[{_HEX},\s*{_HEX}\)", "[java mark bits]"),
    (rf"bounds \[{_HEX}, 0x[0-9a-f]+, {_HEX}\]", "[java code cache]"),
)


def ask(target: Target) -> list[Told]:
    """Return what the virtual machine says about its memory, ascending.

    Raises:
        TargetError: The target is not such a machine.
        PagescanError: jcmd is missing, or has no answer.
    """
    if not is_machine(target.pid):
        raise TargetError(
            f"{target} is not a Java virtual machine, the only runtime that"
            " --ask-runtime asks",
            pid=target.pid,
        )
    jcmd = shutil.which("jcmd")
    if jcmd is None:
        raise PagescanError(
            "--ask-runtime needs jcmd, which is not installed",
            hint="apt install openjdk-17-jdk-headless    (Debian, Ubuntu)",
        )
    if not is_listening(target.pid):
        raise TargetError(
            f"{target} does not answer jcmd now: it has no handler of SIGQUIT, which"
            " would end it",
            hint="try again when the virtual machine has started",
            pid=target.pid,
        )
    words = [jcmd, str(target.pid), "VM.info"]
    try:
        done = subprocess.run(  # noqa: S603 - a pid is all that comes from outside
            words,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _unanswered(target, f"it took more than {_PATIENCE:.0f} s") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise _unanswered(
            target, lines[-1] if lines else f"exit code {done.returncode}"
        )
    return joined(told_in(done.stdout))


def is_machine(pid: int) -> bool:
    """Whether a process has mapped libjvm.so: no other one may get SIGQUIT.

    A Go program catches that signal, too: it prints its stacks and ends.

    Raises:
        OSError: Its mappings cannot be read.
    """
    with open(f"{memory_dir(pid)}/maps", "rb") as maps:
        return b"/libjvm.so" in maps.read()


def is_listening(pid: int) -> bool:
    """Whether it listens already, as with -Xrs from its start, or catches SIGQUIT."""
    try:
        status = read_status(pid)
        inner = status.get("NSpid", str(pid)).split()[-1]
        caught = int(status["SigCgt"], 16)
    except (OSError, KeyError, ValueError, IndexError):
        return False
    socket = f"/proc/{pid}/root/tmp/.java_pid{inner}"
    return bool(caught & 1 << signal.SIGQUIT - 1) or os.path.lexists(socket)


def _unanswered(target: Target, why: str) -> PagescanError:
    return PagescanError(
        f"jcmd got no answer from {target}: {why}",
        hint="jcmd has to run as the user of the target, or as root",
        pid=target.pid,
    )


def told_in(text: str) -> Iterator[Told]:
    """Yield the ranges that an answer names, in its order."""
    # Behind these lines are events of the past, such as earlier sizes of the heap.
    present = re.split(r"(?m)^(?:GC Heap History|Events) \(", text, maxsplit=1)[0]
    for pattern, name in _LINES:
        for match in re.finditer(pattern, present):
            yield Told(Range(int(match[1], 16), int(match[2], 16)), name)


def joined(told: Iterator[Told]) -> list[Told]:
    """Return ranges in ascending order; neighbours for the same purpose are one."""
    found: list[Told] = []
    for span, text in sorted(told):
        before = found[-1] if found else None
        if before and before.text == text and span.start <= before.range.end:
            end = max(before.range.end, span.end)
            found[-1] = Told(Range(before.range.start, end), text)
        else:
            found.append(Told(span, text))
    return found
