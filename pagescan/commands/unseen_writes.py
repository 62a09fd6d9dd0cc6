"""Says which writes have no writer, because of the rights of this user."""

from typing import Protocol

from pagescan.console.context import Context


class Sampled(Protocol):
    """What takes samples, of one target or of a group."""

    @property
    def user_only(self) -> bool:
        """Whether writes of the kernel have no sample."""


def say_unseen_writes(writers: Sampled, context: Context) -> None:
    """Say that writes of the kernel cannot be sampled, if they cannot, and the remedy.

    The caller leaves it out if the user did not want these writes.
    """
    if not writers.user_only:
        return
    context.say(
        "writes of the kernel for the process, as in read(2), have no writer here:"
        " this user may sample only code in user mode"
    )
    context.hint("run as root, or: sysctl kernel.perf_event_paranoid=1")
