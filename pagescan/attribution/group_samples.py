"""Takes page-fault samples of all processes of a group, and gives each process its own.

The samples of all processes go to one ring per processor, and are then told apart.
"""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from collections import defaultdict
from typing import TYPE_CHECKING, Self

from pagescan.attribution.process_writers import ProcessWriters
from pagescan.attribution.samples import FaultSampler
from pagescan.attribution.writers import WriterWatch, python_frames, sample_ns

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagescan.model.groups import GroupTick
    from pagescan.model.looks import Look
    from pagescan.native.perf import Task
    from pagescan.target.process import Target
    from pagescan.tracking.tracking import Tracking

Key = tuple[int, int]
"""Pid and start time."""


class GroupSamples:
    """The samples of a group's members. A context manager.

    It is the follower of a `WatchedGroup`, and `share_out` takes each of its ticks.

    Attributes:
        returned: The categories that a look must return.
        user_only: Writes of the kernel, as in read(2), have no sample.
        sample_ns: The cost of a sample to its process, as an estimate.
        members: The writers of each present member, by pid and start time.
        samples: How many samples have been received.
        python: The Python functions of the samples; None: they are not wanted.
    """

    returned = WriterWatch.returned

    def __init__(
        self,
        *,
        by: str = "function",
        period: int = 1,
        user_only: bool = False,
        ask_runtime: bool = False,
        callers: bool = False,
        python: bool = False,
    ) -> None:
        """Begin without a member; see `WriterWatch` for the arguments."""
        self._by, self._ask_runtime = by, ask_runtime
        self.python = python_frames(callers=callers) if python else None
        self._sampler = FaultSampler(
            [],
            children=False,
            period=period,
            user_only=user_only,
            callers=callers,
            python=self.python,
        )
        self.sample_ns = sample_ns(callers=callers, python=python)
        self.samples = 0
        self.members: dict[Key, ProcessWriters] = {}
        self._lost = 0

    @property
    def user_only(self) -> bool:
        """Whether writes of the kernel, as in read(2), have no sample."""
        return self._sampler.user_only

    @property
    def descriptors(self) -> int:
        """How many events are open."""
        return self._sampler.descriptors

    @property
    def chains(self) -> dict[bytes, int]:
        """The call paths of all samples, with their numbers."""
        return self._sampler.chains

    @property
    def ring_bytes(self) -> int:
        """Bytes of each processor's ring."""
        return self._sampler.ring_bytes

    def expect(self, target: Target) -> None:
        """Begin to take samples of a process that is about to be armed.

        Raises:
            PagescanError: Its faults cannot be sampled, or it cannot be looked at.
        """
        facts = target.facts
        key = (facts.pid, facts.start_time)
        try:
            if self.python is not None:
                self.python.add(facts.pid)
            self._sampler.add(facts.pid)
            if key not in self.members:
                self.members[key] = ProcessWriters(
                    facts, by=self._by, ask_runtime=self._ask_runtime
                )
        except BaseException:
            self._forget(facts.pid)
            raise

    def _forget(self, pid: int) -> None:
        """Take no more samples of a process."""
        self._sampler.remove(pid)
        if self.python is not None:
            self.python.remove(pid)

    def follow(self, tracking: Tracking) -> None:
        """Observe the looks at a member that has just been armed."""
        self._receive()
        facts = tracking.target.facts
        self.members[facts.pid, facts.start_time].follow(tracking)

    def unfollow(self, tracking: Tracking) -> None:
        """Observe a member no more: its tracking has ended."""
        facts = tracking.target.facts
        process = self.members.get((facts.pid, facts.start_time))
        if process is not None and process.tracking is tracking:
            process.stop()

    def share_out(
        self,
        tick: GroupTick,
        join: Callable[[ProcessWriters, Look, int], int],
        let_go: Callable[[ProcessWriters], None],
    ) -> None:
        """Hand the samples of a tick to the members, and join each look with its own.

        Args:
            tick: The tick.
            join: Called with each look, its process and the number of lost samples that
                may be of its pages; returns how many of them are used up.
            let_go: Called with each process that has gone; it is not sampled any more.
        """
        self._receive()
        lost, self._lost = self._sampler.lost - self._lost, self._sampler.lost
        for facts, look in tick.members:
            key = (facts.target.pid, facts.target.start_time)
            process = self.members.get(key)
            if process is None:
                continue
            if look is not None:
                lost -= join(process, look, lost)
            if facts.end is not None:
                del self.members[key]
                self._forget(key[0])
                let_go(process)
        for key, process in [*self.members.items()]:
            if process.tracking is None:
                self._rest(key, process)

    def _rest(self, key: Key, process: ProcessWriters) -> None:
        """Stop to sample a process that is not tracked now; `expect` begins again."""
        self._forget(key[0])
        process.drop_samples()
        if not process.was_tracked:
            del self.members[key]
            process.close()

    def _receive(self) -> None:
        """Hand over all samples that the rings have, to each process its own."""
        for batch in self._sampler.take():
            self.samples += len(batch)
            tasks: defaultdict[int, list[Task]] = defaultdict(list)
            for task in batch.tasks():
                tasks[task.pid].append(task)
            for (pid, _), process in self.members.items():
                process.receive(batch.take_of(pid), tasks[pid])

    def close(self) -> None:
        """End the sampling; nothing is left in the targets, a second call is safe."""
        self._sampler.close()
        if self.python is not None:
            self.python.close()
        for process in self.members.values():
            process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
