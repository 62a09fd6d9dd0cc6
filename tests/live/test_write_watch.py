"""WriteWatch behaves like GetWriteWatch(): written pages and refusals.

The second witness is the test itself, which knows its stores, and pagemap.
"""

import ctypes
import mmap
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator

import pytest

from pagescan.model.errors import PagescanError, UsageError
from pagescan.writewatch import WriteWatch
from tests import witness
from tests.witness import PAGE

pytestmark = pytest.mark.needs("tracking")


@pytest.fixture
def watch() -> Iterator[WriteWatch]:
    """A watch of 64 pages, the last one only partly."""
    with WriteWatch(64 * PAGE - 5) as made:
        yield made


def written(watch: WriteWatch, *part: int, reset: bool = False) -> list[int]:
    """Call `get`; return the page numbers, in the order of the answer."""
    found, granularity = watch.get(*part, reset=reset)
    assert granularity == PAGE
    assert {address % PAGE for address in found} <= {0}
    return [(address - watch.address) // PAGE for address in found]


def script(text: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a separate process, for forks and closed descriptors."""
    return subprocess.run(
        [sys.executable, "-u", "-c", textwrap.dedent(text), *words],
        capture_output=True,
        text=True,
        check=False,
    )


# ---- what is written ---------------------------------------------------------------


def test_fresh_pages_are_not_written(watch: WriteWatch) -> None:
    assert written(watch) == []
    assert bytes(watch.buffer) == bytes(watch.size)
    assert watch.address % PAGE == 0
    assert len(watch.buffer) == watch.size == 64 * PAGE - 5


def test_pages_come_in_ascending_order(watch: WriteWatch) -> None:
    for page in (40, 3, 63, 17, 4):
        watch.buffer[page * PAGE] = 1
    assert written(watch) == [3, 4, 17, 40, 63]
    assert witness.written(os.getpid(), watch.address, watch.address + 64 * PAGE) >= {
        *(3, 4, 17, 40, 63)
    }


def test_a_store_over_a_border_is_two_pages(watch: WriteWatch) -> None:
    watch.buffer[2 * PAGE - 1 : 2 * PAGE + 1] = b"ab"
    assert written(watch) == [1, 2]


def test_the_same_value_counts(watch: WriteWatch) -> None:
    watch.buffer[PAGE] = 7
    watch.reset()
    watch.buffer[PAGE] = 7
    assert written(watch) == [1]


def test_reading_is_not_writing(watch: WriteWatch) -> None:
    """Reading maps the zero page; a store after that counts."""
    assert watch.buffer[5 * PAGE] == 0
    assert 5 in witness.present(
        os.getpid(), watch.address, watch.address + watch.size + 5
    )
    assert written(watch, reset=True) == []
    watch.buffer[5 * PAGE] = 1
    assert written(watch, reset=True) == [5]
    assert watch.buffer[5 * PAGE] == 1
    assert written(watch) == []


def test_what_the_kernel_stores_counts(watch: WriteWatch) -> None:
    """read(2) into the buffer counts, as ReadFile() does on Windows."""
    watch.buffer[9 * PAGE] = 1
    watch.reset()
    source, sink = os.pipe()
    os.write(sink, b"x" * 10)
    assert os.readv(source, [watch.buffer[10 * PAGE - 5 :]]) == 10
    os.close(source)
    os.close(sink)
    assert written(watch) == [9, 10]


def test_a_look_alone_changes_nothing(watch: WriteWatch) -> None:
    watch.buffer[0] = 1
    assert written(watch) == written(watch) == written(watch, reset=True) == [0]
    assert written(watch) == []


def test_dropped_pages_count_no_longer(watch: WriteWatch) -> None:
    """MADV_DONTNEED is no store; a store after it counts."""
    watch.buffer[: 4 * PAGE] = b"a" * 4 * PAGE
    watch._memory.madvise(mmap.MADV_DONTNEED, PAGE, 2 * PAGE)
    assert written(watch, reset=True) == [0, 3]
    watch._memory.madvise(mmap.MADV_DONTNEED, 0, PAGE)
    assert written(watch) == []
    watch.buffer[2 * PAGE] = watch.buffer[0] = 1
    assert written(watch) == [0, 2]


def test_other_rights_change_nothing(watch: WriteWatch) -> None:
    """mprotect(2) changes nothing, like VirtualProtect() on Windows."""
    watch.buffer[2 * PAGE] = watch.buffer[4 * PAGE] = 1
    libc = ctypes.CDLL(None)
    for rights in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
        where = ctypes.c_void_p(watch.address + PAGE)
        assert libc.mprotect(where, ctypes.c_size_t(3 * PAGE), rights) == 0
        assert written(watch) == [2, 4]
    watch.buffer[3 * PAGE] = 1
    assert written(watch, reset=True) == [2, 3, 4]


def test_one_store_is_one_page_where_there_could_be_a_huge_one() -> None:
    with WriteWatch(8 << 20) as watch:
        watch.buffer[4 << 20] = 1
        assert written(watch, reset=True) == [(4 << 20) // PAGE]
        watch.buffer[(4 << 20) + PAGE] = 1
        assert written(watch) == [(4 << 20) // PAGE + 1]


def test_memory_locked_from_the_start_is_not_written() -> None:
    """mlockall(MCL_FUTURE) populates the memory before it is watched."""
    done = script(
        """
        import ctypes
        if ctypes.CDLL(None).mlockall(2):  # MCL_FUTURE
            raise SystemExit("mlockall")
        from pagescan.writewatch import WriteWatch
        with WriteWatch(1 << 16) as watch:
            assert not watch.get()[0], watch.get()
            watch.buffer[5000] = 1
            print(watch.get()[0][0] - watch.address)
        """
    )
    assert (done.stdout, done.stderr) == ("4096\n", "")


# ---- parts and limits --------------------------------------------------------------


def test_a_part_is_its_whole_pages(watch: WriteWatch) -> None:
    """A part need not begin or end at a page border."""
    watch.buffer[0], watch.buffer[PAGE], watch.buffer[2 * PAGE] = b"abc"
    assert written(watch, PAGE - 1, 1) == [0]
    assert written(watch, PAGE - 1, 2) == [0, 1]
    assert written(watch, PAGE) == [1, 2]
    assert written(watch, 0, 2 * PAGE) == [0, 1]
    watch.reset(2 * PAGE - 1, 1)
    assert written(watch) == [0, 2]
    assert written(watch, 64 * PAGE - 6, 1) == []


def test_with_a_limit_only_what_is_returned_is_reset(watch: WriteWatch) -> None:
    """Only returned pages are reset; the next call goes on behind the last."""
    stored = [0, 1, 2, 3, 10, 11, 30, 63]
    for page in stored:
        watch.buffer[page * PAGE] = 1
    found, start = [], 0
    while True:
        pages, granularity = watch.get(start, count=3, reset=True)
        found += [(address - watch.address) // PAGE for address in pages]
        assert written(watch) == stored[len(found) :]
        if len(pages) < 3:
            break
        start = pages[-1] + granularity - watch.address
    assert found == stored


@pytest.mark.parametrize("gap", [1, 2])
def test_more_pages_than_a_call_of_the_kernel_returns(gap: int) -> None:
    """A system call returns 512 regions; the list grows from call to call."""
    with WriteWatch(5000 * PAGE) as watch:
        for most in (4999, 1, 0, 4999):
            stored = list(range(0, most, gap))
            for page in stored:
                watch.buffer[page * PAGE] = 1
            assert written(watch) == stored
            assert written(watch, 0, watch.size, 70) == stored[:70]
            assert written(watch, reset=True) == stored


def test_many_watches_know_only_their_own() -> None:
    watches = [WriteWatch((1 + number % 5) * PAGE) for number in range(300)]
    for number in range(0, 300, 3):
        watches[number].buffer[0] = 1
    for number, watch in enumerate(watches):
        assert written(watch, reset=True) == ([] if number % 3 else [0])
    for watch in watches[::2]:
        watch.close()
    for watch in watches[1::2]:
        watch.buffer[0] = 2
        assert written(watch) == [0]
        watch.close()


# ---- refusals ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "size", "message"),
    [
        (0, 0, "[0, 0) is not a part of 262139 bytes"),
        (0, -1, "[0, -1) is not a part"),
        (-1, 1, "[-1, 0) is not a part"),
        (0, 64 * PAGE, "[0, 262144) is not a part of 262139 bytes"),
        (64 * PAGE - 6, 2, "[262138, 262140) is not a part"),
        (64 * PAGE - 5, None, "[262139, 262139) is not a part"),
        (1 << 70, 1, "is not a part"),
    ],
)
def test_no_part_of_it(
    watch: WriteWatch, start: int, size: int | None, message: str
) -> None:
    """An invalid part is refused as on Windows; nothing is done."""
    watch.buffer[0] = 1
    for call in (watch.get, watch.reset):
        with pytest.raises(UsageError) as caught:
            call(start, size)
        assert message in str(caught.value)
    assert written(watch) == [0]


@pytest.mark.parametrize("count", [0, -1])
def test_no_room_for_an_answer(watch: WriteWatch, count: int) -> None:
    with pytest.raises(UsageError, match=f"count must be above zero, not {count}"):
        watch.get(count=count)


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (0, UsageError, "a write watch needs a size above zero, not 0"),
        (-4096, UsageError, "a write watch needs a size above zero, not -4096"),
        (1 << 80, UsageError, f"no address space has {1 << 80} bytes"),
        (1 << 60, PagescanError, "ENOMEM"),
    ],
)
def test_no_such_memory(size: int, error: type[PagescanError], message: str) -> None:
    with pytest.raises(error) as caught:
        WriteWatch(size)
    assert message in str(caught.value)


def test_it_is_not_closed_under_a_view(watch: WriteWatch) -> None:
    """close() is refused under a view, and the watch goes on."""
    view = watch.buffer
    with pytest.raises(BufferError):
        watch.close()
    view[PAGE] = 1
    assert written(watch) == [1]
    view.release()
    watch.close()
    watch.close()


def test_it_is_shown_shortly(watch: WriteWatch) -> None:
    assert repr(watch) == f"<WriteWatch of {watch.size} bytes: at {watch.address:#x}>"
    watch.close()
    assert repr(watch) == f"<WriteWatch of {watch.size} bytes: closed>"


def test_a_closed_one_answers_nothing(watch: WriteWatch) -> None:
    watch.close()
    for call in (watch.get, watch.reset, lambda: watch.buffer):
        with pytest.raises(ValueError, match="the write watch is closed"):
            call()


def test_memory_that_was_mapped_anew(watch: WriteWatch) -> None:
    """If other memory was mapped there, an error says so."""
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10  # MAP_FIXED
    where, size = ctypes.c_void_p(watch.address + PAGE), ctypes.c_size_t(PAGE)
    assert libc.mmap(where, size, 3, flags, -1, 0) == watch.address + PAGE
    for call in (watch.get, watch.reset):
        with pytest.raises(PagescanError, match="the write watch is lost"):
            call()
    assert written(watch, 2 * PAGE) == []


@pytest.mark.parametrize("which", ["userfaultfd", "pagemap"])
def test_a_descriptor_that_was_closed(which: str) -> None:
    done = script(
        """
        import os, sys
        from pagescan.model.errors import PagescanError
        from pagescan.writewatch import WriteWatch
        with WriteWatch(1 << 16) as watch:
            for name in os.listdir("/proc/self/fd"):
                try:
                    if sys.argv[1] in os.readlink(f"/proc/self/fd/{name}"):
                        os.close(int(name))
                except OSError:
                    pass
            try:
                watch.get()
            except PagescanError as error:
                print(error)
        """,
        which,
    )
    assert done.stdout.startswith("the write watch is lost: "), done


def test_no_descriptors_left() -> None:
    """A watch that could not be made leaves nothing."""
    done = script(
        """
        import os, resource
        import pagescan.native
        from pagescan.model.errors import PagescanError
        from pagescan.writewatch import WriteWatch
        before = os.listdir("/proc/self/fd")
        for spare in (0, 1, 2):
            most = len(before) - 1 + spare
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            try:
                WriteWatch(1 << 16).close()
            except PagescanError as error:
                print(error)
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
            print(len(os.listdir("/proc/self/fd")) - len(before))
        """
    )
    refusal = (
        "cannot watch writes of this process:"
        " this process has reached its limit of descriptors (EMFILE)\n"
    )
    assert done.stdout == f"{refusal}0\n{refusal}0\n2\n", done


# ---- fork --------------------------------------------------------------------------


def test_a_child_has_plain_memory_and_may_watch_itself() -> None:
    """A child's first watch closes its copies of the parent's descriptors."""
    done = script(
        """
        import os
        from pagescan.model.errors import PagescanError
        from pagescan.writewatch import WriteWatch

        def watched(watch):
            return [(at - watch.address) // 4096 for at in watch.get(reset=True)[0]]

        def descriptors():
            files = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
            there = [os.readlink(file) for file in files if os.path.lexists(file)]
            return sorted(name.replace(str(os.getpid()), "ME") for name in there
                          if "userfaultfd" in name or "pagemap" in name)

        watch = WriteWatch(16 * 4096)
        watch.buffer[4096] = 7
        ours = descriptors()
        assert len(ours) == 2
        if not os.fork():
            assert watch.buffer[4096] == 7
            watch.buffer[2 * 4096] = 1
            for call in (watch.get, watch.reset):
                try:
                    call()
                except PagescanError as error:
                    print(error, error.hint, sep="; ")
            with WriteWatch(16 * 4096) as own:
                own.buffer[3 * 4096] = 1
                print(watched(own), descriptors() == ours)
                try:
                    watch.get()
                except PagescanError as error:
                    print(error)
                if not os.fork():  # and a child of the child
                    with WriteWatch(4096) as other:
                        other.buffer[0] = 1
                        print(watched(other), descriptors() == ours)
                    os._exit(0)
                os.wait()
                own.buffer[5 * 4096] = 1
                print(watched(own))
            watch.close()
            os._exit(0)
        assert os.wait()[1] == 0
        watch.buffer[4 * 4096] = 1
        print(watched(watch), descriptors() == ours)
        """
    )
    plain = "nothing watches this memory: a write watch does not follow a fork"
    hint = "make a new WriteWatch in the child"
    assert done.stdout.splitlines() == [
        *(2 * [f"{plain}; {hint}"]),
        *("[3] True", plain, "[0] True", "[5]"),
        "[1, 4] True",
    ], done


def test_a_descriptor_of_the_childs_own_is_not_closed() -> None:
    """A descriptor that the child opened under such a number stays."""
    done = script(
        """
        import os
        from pagescan.writewatch import WriteWatch
        watch = WriteWatch(4096)
        if not os.fork():
            os.closerange(3, 100)
            files = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
            WriteWatch(4096).close()
            for file in files:
                os.fstat(file)
            os._exit(0)
        print(os.wait()[1])
        """
    )
    assert done.stdout == "0\n", done


def test_a_fork_amid_a_first_watch_leaves_no_lock() -> None:
    """Threads make watches while others fork: each child can make its own."""
    done = script(
        """
        import os, threading
        from pagescan.writewatch import WriteWatch
        stop = False
        def make():
            while not stop:
                WriteWatch(4096).close()
        threads = [threading.Thread(target=make) for _ in range(2)]
        for thread in threads: thread.start()
        failed = 0
        for _ in range(200):
            pid = os.fork()
            if not pid:
                with WriteWatch(4096) as watch:
                    watch.buffer[0] = 1
                    os._exit(len(watch.get()[0]) != 1)
            failed += os.waitpid(pid, 0)[1]
        stop = True
        for thread in threads: thread.join()
        print(failed)
        """
    )
    assert done.stdout == "0\n", done


def test_first_watches_of_many_threads_share_two_descriptors() -> None:
    done = script(
        """
        import os, threading
        import pagescan.native
        from pagescan.writewatch import WriteWatch
        before = len(os.listdir("/proc/self/fd"))
        gate = threading.Barrier(8)
        watches = []
        def make():
            gate.wait()
            watches.append(WriteWatch(4096))
        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        for watch in watches:
            watch.buffer[0] = 1
            assert len(watch.get()[0]) == 1
        print(len(os.listdir("/proc/self/fd")) - before)
        """
    )
    assert done.stdout == "2\n", done


def test_a_store_of_another_thread_counts(watch: WriteWatch) -> None:
    thread = threading.Thread(target=watch.buffer.__setitem__, args=(PAGE, 1))
    thread.start()
    thread.join()
    assert written(watch) == [1]
