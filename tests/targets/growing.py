"""A target that keeps 64 KiB more of objects every 20 ms, until its input ends."""

import select
import sys

kept: list[list[int]] = []
sys.stdout.write("ready\n")
sys.stdout.flush()
while not select.select([sys.stdin], [], [], 0.02)[0]:
    kept.append([len(kept) * 1000 + each for each in range(1500)])
sys.stdout.write("0\n")
