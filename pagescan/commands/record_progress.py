"""What `record` says while it records, and at its end."""

import time

from pagescan.commands.progress_line import ProgressLine
from pagescan.console.context import Context
from pagescan.model.groups import GroupTick
from pagescan.model.looks import Tick
from pagescan.model.results import Summary
from pagescan.model.units import format_size, plural
from pagescan.recording.recorder import Recorder


def _quoted(path: str) -> str:
    from shlex import quote

    return quote(path)


class RecordProgress(ProgressLine):
    """A line on stderr that is written again at each look, on a terminal."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._shown = 0.0

    def show(
        self, tick: Tick | GroupTick, summary: Summary | None, recorder: Recorder
    ) -> None:
        """Write the line, at most a few times per second.

        Args:
            tick: The tick.
            summary: What was written in it; None: nothing was looked at.
            recorder: The recorder.
        """
        if not self.context.shows_progress or summary is None:
            return
        now = time.monotonic()
        if now - self._shown < _REDRAWN and not tick.end:
            return
        self._shown = now
        rate = summary.bytes / max(tick.seconds, 1e-6)
        self.write(
            f"{plural(recorder.looks, 'look')}, {format_size(tick.totals.bytes)}"
            f" written, {format_size(int(rate))}/s now,"
            f" file {format_size(recorder.size)}"
        )

    def end(self, recorder: Recorder, why: str, line: str | None = None) -> None:
        """End a recording; print which files it has made, and what shows them.

        Args:
            recorder: What records.
            why: Why it ended, for the file.
            line: The last line about the target; None: no line.
        """
        self.clear()
        recorder.end(why)
        if line is not None:
            self.context.say(line)
        if not recorder.looks:
            return
        self.context.say(
            f"{plural(recorder.looks, 'look')} in {plural(len(recorder.paths), 'file')}"
            f" of {format_size(recorder.size)}"
        )
        names = " ".join(map(_quoted, recorder.paths))
        self.context.hint(f"pagescan report {names}")


_REDRAWN = 0.2
