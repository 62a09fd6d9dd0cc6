"""Names the Python functions in which samples were taken.

A sample has the registers and the top of the stack. By the rules for exceptions of C++,
which all code has, the stack is walked exactly, up to the innermost frame of CPython's
interpreter. Where CPython gives each function code of its own (-X perf), the caller of
that frame is this code, and /tmp/perf-PID.map names it: exactly. Else the address of
the current instruction is in a register or on the stack: see instruction_homes. It
points into a code object, which tells the function: likely.

CPython's own frames are of no use: they are others by the time that a sample is read.
Code objects stay.
"""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import contextlib
import os
import threading
import time
from array import array
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, Self

from pagescan.attribution.code_files import CodeFiles
from pagescan.attribution.frame_rules import ProcessFrames
from pagescan.attribution.jit_maps import JitMap, source_of
from pagescan.attribution.python_code import (
    LAYOUTS,
    CodeObject,
    CodeObjects,
    PythonFunction,
    Types,
)
from pagescan.model.errors import PagescanError, TargetError, from_oserror
from pagescan.native.perf import EXEC
from pagescan.native.stacks import FOUND, NO_RULE, WALK
from pagescan.target.living import memory_dir

if TYPE_CHECKING:
    from pagescan.native import Faults

_EVAL, _VERSION = b"_PyEval_EvalFrameDefault", b"Py_Version"
_TYPES = (b"PyCode_Type", b"PyUnicode_Type", b"PyBytes_Type")
_TYPE_OF_TYPES = b"PyType_Type"
_NAMES = {_EVAL, _VERSION, _TYPE_OF_TYPES, *_TYPES}
_ROUNDS = 64
_LEAST_HITS, _LEAST_MISSES, _LEAST_RATIO = 4, 16, 4
_MOST_SEARCHES = 100
"""Words per batch of samples that are looked up in the target's memory."""
_REFRESH_SECONDS, _MAP_SECONDS = 1.0, 0.05
_LARGEST_EVAL = 1 << 20
_READABLE = "--python reads CPython 3.11 to 3.13, with the GIL"


class Interpreter(NamedTuple):
    """A CPython in a process."""

    version: str
    codes: CodeObjects | None
    """None: this version, or this build of it, cannot be read."""


class _Trust:
    """How often a place had the address of an instruction during a call."""

    def __init__(self) -> None:
        self._hits = self._misses = 0

    def add(self, samples: int, *, valid: bool) -> None:
        self._hits += samples * valid
        self._misses += samples * (not valid)

    def fade(self) -> None:
        """Give a lost place another chance."""
        self._hits, self._misses = self._hits // 2, self._misses // 2

    @property
    def is_earned(self) -> bool:
        return self._hits >= _LEAST_HITS and not self.is_lost

    @property
    def is_lost(self) -> bool:
        misses = self._misses
        return misses >= _LEAST_MISSES and misses * _LEAST_RATIO > self._hits


class PythonProcess:
    """The Python functions of one process.

    Attributes:
        interpreter: Its CPython; None: not loaded yet.
    """

    def __init__(self, pid: int) -> None:
        """Open the process.

        Raises:
            PagescanError: It cannot be looked at, or its memory cannot be read.
        """
        self.pid = pid
        self.interpreter: Interpreter | None = None
        self._exports: dict[object, dict[bytes, tuple[int, int]]] = {}
        self._trampolines: dict[int, PythonFunction] = {}
        self._trust: dict[tuple[int, int], _Trust] = {}
        self._searches = 0
        with contextlib.ExitStack() as undo:
            self._memory = _open_memory(pid)
            undo.callback(os.close, self._memory)
            self._files = undo.enter_context(CodeFiles(pid))
            self._frames = ProcessFrames(pid)
            undo.callback(self._frames.close)
            self._jit = JitMap(self._files)
            self._find_interpreter()
            self._undo = undo.pop_all()
        self._next_refresh = self._next_map = 0.0

    def _find_interpreter(self) -> None:
        """Look for CPython in the program itself, and in files named for Python."""
        seen: set[object] = set()
        for mapping in self._frames.mappings:
            key = (mapping.device, mapping.inode)
            likely = not seen or "python" in os.path.basename(mapping.name)
            if mapping.inode and key not in seen and likely:
                if key not in self._exports:
                    self._exports[key] = self._frames.exports(mapping, _NAMES)
                if _EVAL in self._exports[key]:
                    self.interpreter = self._read_interpreter(self._exports[key])
                    return
            seen.add(key)

    def _read_interpreter(self, found: dict[bytes, tuple[int, int]]) -> Interpreter:
        if not found.keys() >= _NAMES:
            return Interpreter("before 3.11", None)
        version = int.from_bytes(self._read(found[_VERSION][0], 4), "little")
        number = (version >> 24, version >> 16 & 255)
        start, size = found[_EVAL]
        code = self._read(start, min(size, _LARGEST_EVAL))
        types = Types(*(found[name][0] for name in _TYPES))
        # In a build without the GIL objects have their type elsewhere.
        kind = int.from_bytes(self._read(types.code + 8, 8), "little")
        usable = kind == found[_TYPE_OF_TYPES][0] and number in LAYOUTS
        codes = None
        if usable and self._frames.set_interpreter(start, code):
            codes = CodeObjects(self._memory, LAYOUTS[number], types)
        return Interpreter(f"{number[0]}.{number[1]}", codes)

    @property
    def is_named(self) -> bool:
        """Whether its functions can be named."""
        return self.interpreter is not None and self.interpreter.codes is not None

    def _read(self, address: int, size: int) -> bytes:
        with contextlib.suppress(OSError, OverflowError):
            return os.pread(self._memory, size, address)
        return b""

    def name(self, samples: Faults, functions: Numbers) -> None:
        """Set the origins of the samples of this process to their Python functions."""
        self._refresh()
        if self.interpreter is None or self.interpreter.codes is None:
            return
        codes = self.interpreter.codes
        codes.begin()
        self._searches = 0
        length = len(samples)
        found = array("Q", bytes(8 * WALK * length))
        for _ in range(_ROUNDS):
            if not self._frames.rules.walk(samples, self.pid, found):
                break
            self._frames.add(
                {
                    found[at + 1]
                    for at in range(0, WALK * length, WALK)
                    if found[at] == NO_RULE
                }
            )
        keys = [
            tuple(found[at + 1 : at + WALK]) if found[at] == FOUND else ()
            for at in range(0, WALK * length, WALK)
        ]
        counts = Counter(keys)
        del counts[()]
        codes_of = {key: self._look_up(codes, key, counts[key]) for key in counts}
        numbers: dict[tuple[int, ...], int] = {}
        for key, valid in codes_of.items():
            function = self._function(key, valid)
            numbers[key] = functions.of(function) if function else 0
        for sample, key in enumerate(keys):
            if key:
                samples.origins[sample] = numbers[key]

    def _look_up(
        self, codes: CodeObjects, key: tuple[int, ...], samples: int
    ) -> list[CodeObject | None]:
        """Return the code object at each place that may have the instruction."""
        call, _, *words = key
        found: list[CodeObject | None] = []
        for place, word in enumerate(words):
            trust = self._trust.setdefault((call, place), _Trust())
            code = None
            if word and not trust.is_lost and self._searches < _MOST_SEARCHES:
                code = codes.known_at(word)
                if code is None:
                    self._searches += 1
                    code = codes.search(word)
                trust.add(samples, valid=code is not None)
            found.append(code)
        return found

    def _function(
        self, key: tuple[int, ...], found: list[CodeObject | None]
    ) -> PythonFunction | None:
        """Return the function; None: it is not known for sure enough.

        A place that often has something else says nothing; the others have to agree.
        """
        call, caller, *_ = key
        functions = {
            code.function
            for place, code in enumerate(found)
            if code and not code.is_internal and self._is_trusted(call, place)
        }
        likely = functions.pop() if len(functions) == 1 else None
        exact = self._trampoline(caller)
        if exact is None or likely is None:
            return exact or likely
        same = (exact.name, exact.file) == (likely.name, likely.file)
        # CPython 3.13 runs some __init__ in the frame of their caller.
        return exact._replace(line=likely.line) if same else likely

    def _is_trusted(self, call: int, place: int) -> bool:
        """Whether a place has the instruction during a call, by its earlier samples."""
        in_register = place == 0 and self._frames.in_register
        return in_register or self._trust[call, place].is_earned

    def _trampoline(self, caller: int) -> PythonFunction | None:
        """Return the function that owns the code that called the interpreter."""
        if caller in self._trampolines:
            return self._trampolines[caller]
        mapping = self._frames.mapping(caller)
        if mapping is not None and mapping.inode:
            return None
        found = self._jit.at(caller)
        if found is None and time.monotonic() >= self._next_map:
            self._jit.refresh()
            self._next_map = time.monotonic() + _MAP_SECONDS
            found = self._jit.at(caller)
        if found is None or not found[0].startswith(b"py::"):
            return None
        name, file, _ = source_of(found[0].decode(errors="replace"))
        function = PythonFunction(name, file or "", None, exact=True)
        self._trampolines[caller] = function
        return function

    def _refresh(self) -> None:
        """Look for code that came or went since; other code may be in its place."""
        now = time.monotonic()
        if now < self._next_refresh:
            return
        self._next_refresh = now + (_REFRESH_SECONDS if self.is_named else _MAP_SECONDS)
        with contextlib.suppress(PagescanError):  # it has ended
            self._frames.refresh()
            if not self.is_named:
                self._find_interpreter()
        if self.interpreter is not None and self.interpreter.codes is not None:
            self.interpreter.codes.forget_misses()
        for trust in self._trust.values():
            trust.fade()

    def close(self) -> None:
        """Close the files; a second call has no effect."""
        self._undo.close()


class Numbers:
    """Numbers of Python functions, from 1."""

    def __init__(self) -> None:
        """Begin without a function."""
        self._numbers: dict[PythonFunction, int] = {}

    def of(self, function: PythonFunction) -> int:
        """Return the number of a function."""
        return self._numbers.setdefault(function, len(self._numbers) + 1)

    def functions(self) -> dict[int, PythonFunction]:
        """Return the functions by their numbers."""
        return {number: function for function, number in [*self._numbers.items()]}


class PythonFrames:
    """Sets the origins of samples of any processes to their Python functions.

    Attributes:
        numbers: The functions.
    """

    def __init__(self) -> None:
        """Begin without a process."""
        self.numbers = Numbers()
        self._processes: dict[int, PythonProcess] = {}
        self._unread: set[str] = set()
        self._lock = threading.RLock()

    def add(self, pid: int) -> PythonProcess:
        """Open a process before its first sample; return what is known of it.

        Raises:
            PagescanError: Its memory cannot be read.
        """
        process = PythonProcess(pid)
        with self._lock:
            self.remove(pid)
            self._processes[pid] = process
        return process

    def remove(self, pid: int) -> None:
        """Close a process, if it is open."""
        with self._lock:
            process = self._processes.pop(pid, None)
            if process is not None:
                self._note(process)
                process.close()

    def _note(self, process: PythonProcess) -> None:
        if process.interpreter is not None and not process.is_named:
            self._unread.add(process.interpreter.version)

    def notes(self) -> list[str]:
        """Return what the user should know about interpreters that were met."""
        with self._lock:
            for process in self._processes.values():
                self._note(process)
        return [
            f"functions of CPython {version} have no name: {_READABLE}"
            for version in sorted(self._unread)
        ]

    def check(self, pid: int) -> None:
        """Check that an open process is a Python whose functions can be named.

        Raises:
            TargetError: It is no CPython, or its version cannot be read.
        """
        process = self._processes[pid]
        if process.interpreter is None:
            raise TargetError(f"process {pid} is no CPython", pid=pid, hint=_READABLE)
        if not process.is_named:
            raise TargetError(
                f"process {pid} is a CPython {process.interpreter.version},"
                " whose functions cannot be read",
                pid=pid,
                hint=_READABLE,
            )

    def name(self, samples: Faults) -> None:
        """Set the origins of samples; those without a known function get 0."""
        length = len(samples)
        samples.origins[:length] = array("Q", bytes(8 * length))
        with self._lock:
            for task in samples.tasks():
                if task.kind == EXEC and task.pid in self._processes:
                    with contextlib.suppress(PagescanError):  # it has ended
                        self.add(task.pid)
            for pid in {thread >> 32 for thread in samples.threads[:length]}:
                if pid in self._processes:
                    self._processes[pid].name(samples, self.numbers)

    def close(self) -> None:
        """Close all processes; a second call has no effect."""
        for pid in [*self._processes]:
            self.remove(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_memory(pid: int) -> int:
    try:
        return os.open(f"{memory_dir(pid)}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise from_oserror(
            error, doing=f"read the memory of {pid}", pid=pid, call="open"
        ) from error
