"""Measures how many copied pages gc.freeze() saves a server that forks its workers.

A parent loads data and forks workers. Each worker serves some requests, which only read
the data, and collects garbage. Every page that a worker writes is copied for it. The
example runs once without changes, and once with the garbage collector told to leave the
objects from before the fork alone:

    gc.disable()    # in the parent, from its start: no collection leaves holes
    gc.freeze()     # right before the fork
    gc.enable()     # in the worker

    python examples/prefork.py [--items N] [--workers N] [--json]
"""

import argparse
import gc
import json
import os
import random
from typing import TypedDict

import pagescan

REQUESTS = 200


class Counts(TypedDict):
    """The pages that one worker wrote, while it served and while it collected."""

    requests: int
    collect: int


def load(items: int) -> dict[int, list[object]]:
    """Make data like a server's: many small containers, which the GC tracks."""
    return {key: [key * 7, {"name": str(key)}] for key in range(items)}


def serve(data: dict[int, list[object]], seed: int) -> int:
    """Answer requests: each reads a few entries."""
    draw = random.Random(seed)
    keys = [draw.randrange(len(data)) for _ in range(REQUESTS)]
    return sum(len(data[key]) for key in keys)


def work(data: dict[int, list[object]], seed: int) -> Counts:
    """Serve requests and collect garbage; count the written pages of both."""
    with pagescan.written_pages() as requests:
        serve(data, seed)
    with pagescan.written_pages() as collection:
        gc.collect()
    return {"requests": requests.pages, "collect": collection.pages}


def run(items: int, workers: int, *, freeze: bool) -> list[Counts]:
    """Load data, fork workers, and return the pages that each worker wrote."""
    if freeze:
        gc.disable()
    data = load(items)
    if freeze:
        gc.freeze()
    return [forked(data, seed) for seed in range(workers)]


def forked(data: dict[int, list[object]], seed: int) -> Counts:
    """Run one worker to its end."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            gc.enable()
            os.write(writer, json.dumps(work(data, seed)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as answer:
        counts: Counts = json.loads(answer.read() or b"null")
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise SystemExit("a worker failed")
    return counts


def alone(items: int, workers: int, *, freeze: bool) -> list[Counts]:
    """Run one way in a new process, so that it does not influence the other way."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            counts = run(items, workers, freeze=freeze)
            os.write(writer, json.dumps(counts).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as answer:
        result: list[Counts] = json.loads(answer.read() or b"[]")
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise SystemExit("a parent failed")
    return result


def main() -> None:
    """Run both ways and print them side by side."""
    parser = argparse.ArgumentParser(description="pages that a worker copies")
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    plain = alone(options.items, options.workers, freeze=False)
    frozen = alone(options.items, options.workers, freeze=True)
    if options.json:
        print(json.dumps({"plain": plain, "frozen": frozen}))
        return
    print("worker  requests  gc.collect()   with gc.freeze(): requests  gc.collect()")
    for number, (one, two) in enumerate(zip(plain, frozen, strict=True), 1):
        print(
            f"{number:6}  {one['requests']:8}  {one['collect']:12}"
            f"  {two['requests']:26}  {two['collect']:12}"
        )


if __name__ == "__main__":
    main()
