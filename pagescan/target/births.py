"""Receives each fork on the machine, so that even the shortest life is counted.

The kernel tells root of forks through the process connector, a netlink socket. Other
users cannot know of a child that lives for less than a tick.
"""

import contextlib
import errno
import os
import socket
import struct
import threading
from typing import Self

_NETLINK_CONNECTOR = 11
_CN_IDX_PROC = _CN_VAL_PROC = _PROC_CN_MCAST_LISTEN = 1  # linux/cn_proc.h, connector.h
_PROC_EVENT_FORK = 1
_NLMSG_DONE = 3
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO
_SO_RCVBUFFORCE = 33
_ROOM = 8 << 20  # bytes: some ten thousand events

_NLMSGHDR = struct.Struct("=IHHII")
_CN_MSG = struct.Struct("=IIIIHH")
_INPUT = struct.Struct("=II")  # struct proc_input
_EVENT = struct.Struct("=IIQ")  # the beginning of struct proc_event
_FORK = struct.Struct("=IIII")
_AT = _NLMSGHDR.size + _CN_MSG.size


class Births:
    """The forks since the last call of `read`.

    Attributes:
        complete: Whether no fork was lost for want of room.
    """

    def __init__(self, connector: socket.socket) -> None:
        """Take over a listening socket; only `open` calls this."""
        self._socket = connector
        self.complete = True

    @classmethod
    def open(cls) -> Self | None:
        """Listen from now on; None: the kernel does not tell this user."""
        with contextlib.suppress(OSError):
            if os.readlink("/proc/self/ns/pid") != _INITIAL_PID_NAMESPACE:
                return None
            kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
            connector = socket.socket(socket.AF_NETLINK, kind, _NETLINK_CONNECTOR)
            try:
                with contextlib.suppress(OSError):
                    connector.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
                connector.bind((0, _CN_IDX_PROC))
                connector.send(_listen())
                # No answer comes, because it is not a fork: a thread of ours must be
                # heard of, or else the kernel has refused.
                trial = threading.Thread(target=os.getpid)
                trial.start()
                trial.join()
                connector.recv(4096)
            except OSError:
                connector.close()
                raise
            return cls(connector)
        return None

    def read(self) -> list[tuple[int, int]]:
        """Return the forks since the last call: the parent's pid, the child's pid."""
        forks: list[tuple[int, int]] = []
        while True:
            try:
                data = self._socket.recv(4096)
            except BlockingIOError:
                return forks
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.complete = False
                continue
            what, _, _ = _EVENT.unpack_from(data, _AT)
            if what != _PROC_EVENT_FORK:
                continue
            _, parent, thread, child = _FORK.unpack_from(data, _AT + _EVENT.size)
            if thread == child:  # otherwise it was a thread
                forks.append((parent, child))

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _listen() -> bytes:
    """Return the message that asks for forks alone."""
    asked = _INPUT.pack(_PROC_CN_MCAST_LISTEN, _PROC_EVENT_FORK)
    message = _CN_MSG.pack(_CN_IDX_PROC, _CN_VAL_PROC, 0, 0, len(asked), 0) + asked
    length = _NLMSGHDR.size + len(message)
    return _NLMSGHDR.pack(length, _NLMSG_DONE, 0, 0, os.getpid()) + message
