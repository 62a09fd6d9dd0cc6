"""A Python program whose functions know which pages they write.

It prints the addresses of each function as JSON, and at each line of stdin all
functions write to their pages, each in its own way. With "late" as its argument, the
references that a function holds go when it returns.
"""

import ctypes
import json
import mmap
import struct
import sys
import threading
from collections.abc import Iterator

PAGE, PAGES = 4096, 40
OFFSETS = range(0, PAGE * PAGES, PAGE)
FUNCTIONS = {
    "store": "store",
    "pack": "pack",
    "whole": "whole",
    "put": "put",
    "steps": "steps",
    "key": "key",
    "prop": "Kept.prop",
    "setitem": "Kept.__setitem__",
    "compare": "Kept.__eq__",
    "finalizer": "Kept.__del__",
    "deep": "deep",
    "inner": "outer.<locals>.inner",
    "handler": "handler",
    "lam": "<lambda>",
    "of_thread": "of_thread",
    "reader": "reader",
    "after_call": "after_call",
    "init": "Made.__init__",
    "native": "native",
    "ünïcode": "ünïcode",
}
AREAS = {name: mmap.mmap(-1, PAGE * PAGES) for name in FUNCTIONS}
for _area in AREAS.values():
    _area[:] = b"x" * len(_area)
STARTS = {
    name: ctypes.addressof(ctypes.c_char.from_buffer(area))
    for name, area in AREAS.items()
}


def store() -> None:
    area = AREAS["store"]
    for at in OFFSETS:
        area[at] = 1


def pack() -> None:
    for at in OFFSETS:
        struct.pack_into("Q", AREAS["pack"], at, 7)


def whole() -> None:
    AREAS["whole"][:] = b"y" * PAGE * PAGES


def put(area: mmap.mmap, at: int) -> None:
    area[at] = 2


def puts() -> None:
    for at in OFFSETS:
        put(AREAS["put"], at)


def steps() -> Iterator[int]:
    for at in OFFSETS:
        AREAS["steps"][at] = 3
        yield at


def key(number: int) -> int:
    AREAS["key"][number * PAGE] = 4
    return -number


class Kept:
    def __init__(self, at: int) -> None:
        self.at = at

    @property
    def prop(self) -> "Kept":
        AREAS["prop"][self.at] = 5
        return self

    def __setitem__(self, at: int, value: int) -> None:
        AREAS["setitem"][at] = value

    def __eq__(self, other: object) -> bool:
        AREAS["compare"][self.at] = 6
        return False

    def __hash__(self) -> int:
        return 1

    def __del__(self) -> None:
        AREAS["finalizer"][self.at] = 7


def methods() -> None:
    kept = {}
    one: Kept | None = None
    for at in OFFSETS:
        one = Kept(at)
        one[at] = 8
        kept[one.prop] = at
    kept.clear()
    one = None


class Made:
    def __init__(self, at: int) -> None:
        AREAS["init"][at] = 16


def makes() -> None:
    for at in OFFSETS:
        Made(at)


def deep(depth: int) -> None:
    if depth:
        deep(depth - 1)
        return
    for at in OFFSETS:
        AREAS["deep"][at] = 9


def outer() -> None:
    def inner(at: int) -> None:
        AREAS["inner"][at] = 10

    for at in OFFSETS:
        inner(at)


def handler() -> None:
    for at in OFFSETS:
        try:
            raise ValueError(at)
        except ValueError as error:
            AREAS["handler"][error.args[0]] = 11


lam = lambda at: struct.pack_into("B", AREAS["lam"], at, 12)  # noqa: E731


def of_thread() -> None:
    for at in OFFSETS:
        AREAS["of_thread"][at] = 13


def threads() -> None:
    thread = threading.Thread(target=of_thread)
    thread.start()
    thread.join()


def reader() -> None:
    with open("/dev/zero", "rb", buffering=0) as zeros:
        zeros.readinto(AREAS["reader"])


def other(number: int) -> list[str]:
    return [str(number)] * 3


def after_call() -> None:
    for at in OFFSETS:
        other(at)
        AREAS["after_call"][at] = 14


def native() -> None:
    ctypes.memset(STARTS["native"], 1, PAGE * PAGES)


def ünïcode() -> None:
    for at in OFFSETS:
        AREAS["ünïcode"][at] = 15


def write_all() -> None:
    store()
    pack()
    whole()
    puts()
    for _ in steps():
        pass
    sorted(range(PAGES), key=key)
    methods()
    makes()
    deep(50)
    outer()
    handler()
    list(map(lam, OFFSETS))
    threads()
    reader()
    after_call()
    native()
    ünïcode()


BLOCKS = [bytes(2 * PAGE) for _ in range(200)] if sys.argv[1] == "late" else []


def take() -> tuple[bytes, ...]:
    return tuple(BLOCKS)


def wait() -> int:
    [other(number) for number in range(3)]
    print("held", flush=True)
    return len(sys.stdin.readline()) * 2


def holder() -> None:
    held = take()
    wait()


if BLOCKS:
    pages = [id(block) // PAGE * PAGE for block in BLOCKS[1:-1]]
    print(json.dumps({"holder": [[at, at + PAGE] for at in pages]}), flush=True)
    while True:
        holder()
truth = {FUNCTIONS[name]: [[at, at + PAGE * PAGES]] for name, at in STARTS.items()}
print(json.dumps(truth), flush=True)
for _line in sys.stdin:
    write_all()
    print("done", flush=True)
