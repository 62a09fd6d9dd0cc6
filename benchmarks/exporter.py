"""Measures the cost of a scrape of `pagescan exporter`, beside reading smaps.

    python benchmarks/exporter.py [PROCESSES [MIB]]

Starts that many Python processes (200), each with that much memory (4 MiB), lets the
exporter scrape them ten times, and reads /proc/PID/smaps of all of them as often.
"""

import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median

CHILD = """
import sys
memory = bytearray(int(sys.argv[1]) << 20)
for at in range(0, len(memory), 4096):
    memory[at] = 1
print(flush=True)
sys.stdin.read()
"""
ROUNDS = 10


def start(count: int, mebibytes: int) -> "list[subprocess.Popen[bytes]]":
    """Start the processes, and wait until they have their memory."""
    made = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(mebibytes), "pagescan-bench"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(count)
    ]
    for process in made:
        assert process.stdout is not None
        process.stdout.readline()
    return made


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    return time.clock_gettime((~pid << 3) | 2)  # CPUCLOCK_SCHED is 2


def read_smaps(pids: list[int]) -> float:
    """Read smaps of all, as process-exporter does; return the longest read."""
    longest = 0.0
    for pid in pids:
        with Path(f"/proc/{pid}/smaps").open("rb", buffering=0) as smaps:
            piece = b"-"
            while piece:
                begun = time.perf_counter()
                piece = smaps.read(1 << 16)
                longest = max(longest, time.perf_counter() - begun)
    return longest


def exporter_rounds(words: list[str]) -> None:
    """Scrape again and again, and print the medians."""
    program = [sys.executable, "-m", "pagescan", "exporter", "--listen", "127.0.0.1:0"]
    exporter = subprocess.Popen([*program, *words], stderr=subprocess.PIPE, text=True)
    assert exporter.stderr is not None
    line = exporter.stderr.readline()
    port = line.partition("127.0.0.1:")[2].partition(";")[0]
    seconds, used, holds = [], [], []
    time.sleep(2)
    text = ""
    for _ in range(ROUNDS):
        time.sleep(1.1)
        before, begun = processor_seconds(exporter.pid), time.perf_counter()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        seconds.append(time.perf_counter() - begun)
        used.append(processor_seconds(exporter.pid) - before)
        hold = text.partition("\npagescan_longest_hold_seconds ")[2].split()[0]
        holds.append(float(hold))
    status = Path(f"/proc/{exporter.pid}/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    series = sum(not row.startswith("#") for row in text.splitlines())
    exporter.send_signal(2)
    exporter.wait()
    print(f"exporter {' '.join(words)}: {series} series")
    print(f"  scrape {median(seconds):.3f} s, first {seconds[0]:.3f} s")
    each = median(used)
    print(f"  processor {each * 1e3:.0f} ms per scrape: {each / 15:.2%} at 15 s")
    print(f"  memory {resident:.1f} MiB, longest hold {holds[-1] * 1e6:.0f} us")


def main() -> None:
    """Measure, and print."""
    count, mebibytes = (int(word) for word in (*sys.argv[1:], "200", "4")[:2])
    made = start(count, mebibytes)
    try:
        exporter_rounds(["--match", "pagescan-bench"])
        pids = [process.pid for process in made]
        used, longest = time.process_time(), 0.0
        for _ in range(ROUNDS):
            longest = max(longest, read_smaps(pids))
        each = (time.process_time() - used) / ROUNDS
        print(
            f"smaps: processor {each * 1e3:.0f} ms, longest read {longest * 1e6:.0f} us"
        )
    finally:
        for process in made:
            process.kill()
            process.communicate()


if __name__ == "__main__":
    main()
