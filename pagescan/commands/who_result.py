"""Says what a user of `who` should know: limits of the samples, and the sums."""

from pagescan.commands.profile_options import ProfileFile
from pagescan.commands.unseen_writes import Sampled, say_unseen_writes
from pagescan.console.context import Context
from pagescan.model.units import format_seconds, plural
from pagescan.model.writers import PythonPages, Writer, WriterReport

_MUCH = 0.01
_COMPILED = (
    "code that a runtime compiles gets its names from the runtime: --ask-runtime for a"
    " JVM, --perf-basic-prof for node, -X perf for Python"
)


def say_limits(writers: Sampled, context: Context, period: int, *, asked: bool) -> None:
    """Say which writes cannot be seen with these rights and options."""
    if not asked:
        say_unseen_writes(writers, context)
    if period > 1:
        context.say(
            f"one fault in {period} is sampled: the shares are right, within chance;"
            " the pages are those of the samples"
        )


def say_result(
    report: WriterReport,
    profile: ProfileFile | None,
    context: Context,
    unseen_ns: int | None = None,
) -> None:
    """Write the profile, and say the notes and the sums of a report.

    Args:
        report: The writers.
        profile: The file for a viewer; None: it was not asked for.
        context: Where messages go.
        unseen_ns: How long before the end of the target the last look was.
    """
    if profile is not None:
        from pagescan.model.profile import profile_of

        profile.write(profile_of(report))
        context.say(f"{profile.path} has {plural(report.sampled, 'page')} for a viewer")
    for note in report.notes:
        context.say(note)
    context.say(_end_line(report, unseen_ns))
    if report.python is not None:
        context.say(_python_line(report, report.python))
    if any(_is_compiled(writer) for writer in report.writers):
        context.hint(_COMPILED)


def _python_line(report: WriterReport, python: PythonPages) -> str:
    """Return how many pages were written in known functions of Python."""
    exact, likely = python
    text = f"{exact + likely} of {plural(report.attributed, 'page')} were written"
    text += " in a known function of Python"
    if exact:
        text += f": {exact} exactly, as CPython names it, {likely} likely"
    elif likely:
        text += ": likely, since it was read from the stack (exactly with -X perf)"
    return text


def _is_compiled(writer: Writer) -> bool:
    """Whether code that a runtime has compiled wrote much, and has no name."""
    return (
        writer.function is None
        and (writer.module or "").startswith("[")
        and writer.share > _MUCH
    )


def _end_line(report: WriterReport, unseen_ns: int | None) -> str:
    """Return the last line: how much was written, and how much of it has a writer."""
    line = (
        f"{plural(report.written, 'page')} written in {plural(report.ticks, 'look')},"
        f" {report.attributed} of them with a known first writer"
    )
    if report.ambiguous:
        line += f"; {report.ambiguous} had been read or written by other code before"
    if report.lost:
        line += f"; samples of up to {plural(report.lost, 'page')} were lost"
    if report.gone:
        line += f"; {report.gone} of the processes went"
    if report.short_lived:
        line += f"; {report.short_lived} lived too short for a look"
    if unseen_ns is not None:
        unseen = format_seconds(unseen_ns / 1e9)
        line += f"; the last look was {unseen} before the end"
    return line
