"""Command lines that are nearly right: the cause, the exit code, and what was meant."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pagescan.model.errors import PagescanError
from pagescan.model.memory import Mapping
from pagescan.target.selection import Selection
from tests.conftest import Result, command

ME = str(os.getpid())


def said(result: Result) -> tuple[int, str, str]:
    """Return the exit code, the message and the hint; nothing else may be printed."""
    message, *hint = result.stderr.splitlines()
    assert message.startswith("pagescan: ")
    assert len(hint) <= 1, result.stderr
    assert result.stdout == ""
    first = hint[0].removeprefix("hint: ") if hint else ""
    return result.code, message.removeprefix("pagescan: "), first


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        # The habits of other tools.
        ("scan -p ME", "no such option '-p'", "TARGET needs no option: pagescan scan"),
        ("-p ME", "no such option '-p'", "needs no option: pagescan watch PID"),
        ("--pid ME", "no such option '--pid'", "needs no option: pagescan watch PID"),
        ("who --pid=ME", "no such option '--pid'", "pagescan who PID"),
        ("watch ME -d 5", "no such option '-d'", "--duration ends it, and -i sets"),
        ("who ME -n 3", "no such option '-n'", "--duration ends it"),
        ("cow ME -n 3", "no such option '-n'", "--duration ends it"),
        ("who ME --seconds 5", "no such option '--seconds'", "--duration ends it"),
        ("watch ME 0.5", "malformed range: '0.5'", "an interval is an option: -i 0.5"),
        ("scan ME --category file", "no such option '--category'", "--require lists"),
        ("report x --from 1s", "no such option '--from'", "--time START-END"),
        ("exporter --port 9000", "no such option '--port'", "--listen HOST:PORT"),
        ("-V", "no such option '-V'", "pagescan --version"),
        ("version", "no such command: 'version'", "did you mean pagescan --version?"),
        ("start ME", "no such command: 'start'", "did you mean pagescan arm?"),
        ("stop ME", "no such command: 'stop'", "did you mean pagescan disarm?"),
        ("top ME", "no such command: 'top'", "did you mean pagescan watch?"),
        ("ps", "no such command: 'ps'", "did you mean pagescan sessions?"),
        # Singular and plural, and other slips.
        ("session", "no such command: 'session'", "did you mean sessions?"),
        (
            "watch ME --intervall 1",
            "no such option '--intervall'",
            "did you mean --int",
        ),
        ("watch ME --by mappings", "'mappings' is not one of", "mean --by mapping?"),
        ("who ME --by func", "'func' is not one of", "did you mean --by function?"),
        ("changed ME --csv", "no such option '--csv'", "the exit code is the answer"),
        ("changed ME --jsno", "no such option '--jsno'", "pagescan changed -h"),
        # The habits of other tools, once more.
        ("leak ME", "no such command: 'leak'", "did you mean pagescan watch?"),
        ("maps -x ME", "no such option '-x'", "--smaps adds private, shared"),
        ("watch -f ME", "no such option '-f'", "--tree takes the descendants"),
        ("who --subprocesses ME", "no such option '--subp", "--tree takes the desc"),
        ("who -g ME", "no such option '-g'", "--callers shows who called"),
        ("maps ME --sort rss", "unknown column: 'rss'", "did you mean present? there"),
        ("maps ME -c uss", "unknown column: 'uss'", "did you mean private? there"),
        # Words that are missing, or too many.
        ("cow", "which process? TARGET is missing", "give a pid or a name"),
        ("changed", "which process? TARGET is missing", "pagescan changed PID"),
        ("dump-plan", "which process? TARGET is missing", "pagescan dump-plan PID"),
        ("maps", "which process? TARGET is missing", "give a pid or a name"),
        ("report", "which recording? FILE is missing", "pagescan report -h"),
        ("completion", "an argument is missing", "takes one of: bash zsh fish"),
        ("doctor ME", "doctor takes no argument: 'ME'", "pagescan doctor -h"),
        ("sessions ME", "sessions takes no argument: 'ME'", "pagescan sessions -h"),
        ("exporter ME", "exporter takes no argument: 'ME'", "exporter --tree ME?"),
        ("diff ME ME", "diff takes one TARGET, or two recordings", "pagescan diff ME"),
        ("watch ME 5", "malformed range: '5'", "one TARGET at a time"),
    ],
)
def test_usage(words: str, message: str, hint: str) -> None:
    """Exit code 2, one line with the cause, and a hint that says what was meant."""
    result = said(command(*words.replace("ME", ME).split()))
    assert result[0] == 2
    assert message.replace("ME", ME) in result[1]
    assert hint.replace("ME", ME) in result[2]


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        (f"/proc/{ME}", f"did you mean {ME}?"),
        (f"/proc/{ME}/maps", f"did you mean {ME}?"),
        ("./no-such-program", "a name as in ps -e: 'no-such-program'"),
        ("no-such-process", ""),
    ],
)
@pytest.mark.parametrize("name", ["watch", "maps", "cow", "disarm"])
def test_no_process(name: str, target: str, hint: str) -> None:
    """Exit code 3, and what the word is if it is no process."""
    code, message, meant = said(command(name, target))
    assert (code, message) == (3, f"no process is named {target!r}")
    assert meant.endswith(hint)
    assert bool(meant) == bool(hint)


@pytest.mark.needs("root", "unshare")
@pytest.mark.parametrize("name", ["watch", "maps", "cow", "disarm"])
def test_word_of_no_process(name: str) -> None:
    """The same for a common word, where no command line has it."""
    alone = ("unshare", "--pid", "--fork", "--mount-proc")
    done = subprocess.run(
        [*alone, sys.executable, "-m", "pagescan", name, "all"],
        capture_output=True,
        text=True,
        check=False,
    )
    code, message, meant = said(Result(done.returncode, done.stdout, done.stderr))
    assert (code, message) == (3, "no process is named 'all'")
    assert meant.endswith("did you mean --all?")


def test_program_that_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that starts it is offered; no other process has such a name."""
    program = tmp_path / f"program-of-{ME}"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    code, message, meant = said(command("maps", program.name))
    assert (code, message) == (3, f"no process is named {program.name!r}")
    assert meant == f"to start it: pagescan watch -- {program.name}"


@pytest.mark.parametrize(
    "words",
    [
        "watch ME --duration=",
        "who ME --duration=",
        "record ME --duration=",
        "cow ME --duration=",
        "record ME --output=",
        "scan ME --sort=",
        "watch --match=",
        "exporter --match=",
        "exporter --listen=",
        "report x --time=",
        "report x --view migration --bandwidth=",
        "report x --view migration --downtime=",
        "report x --html=",
    ],
)
def test_empty_values(words: str) -> None:
    """A variable that is not set makes no other command: none without an end."""
    option = words.rsplit(maxsplit=1)[-1].removesuffix("=")
    empty = said(command(*words.replace("ME", ME).split()))
    assert empty == (2, f"{option} has an empty value", "")


@pytest.mark.parametrize("name", ["scan", "arm", "watch", "diff", "disarm", "changed"])
def test_empty_target(name: str) -> None:
    """It is not in the command line of every process."""
    assert said(command(name, ""))[:2] == (2, "an empty TARGET names no process")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--csv diff", "behind it: pagescan COMMAND --csv"),
        ("--interval 1 watch ME", "behind it: pagescan COMMAND --interval"),
        ("scan ME --max-tables 1M", "it belongs to arm, watch, who, record"),
        ("--max-tables 1M scan ME", "it belongs to arm, watch, who, record"),
        ("diff --rearm --max-tables 1M", "a session keeps the limit of its arm"),
        ("doctor --max-stall 1ms", "it belongs to the commands that scan"),
    ],
)
def test_options_of_others(words: str, hint: str) -> None:
    """An option in the wrong place, or of another command, is known as such."""
    code, message, meant = said(command(*words.replace("ME", ME).split()))
    assert (code, message[:15]) == (2, "no such option ")
    assert hint in meant


def test_options_of_all_stand_before_the_command() -> None:
    """Those with a value, too."""
    words = ("scan", ME, "[stack]", "--csv")
    for option in ("--max-stall 1ms", "--max-stall=1ms", "--color never", "-q"):
        result = command(*option.split(), *words)
        assert (result.code, result.stderr) == (0, "")
    code, message, _ = said(command("--max-stall", "0", *words))
    assert (code, message) == (2, "--max-stall: not a time above zero: '0'")


def test_mapping_without_its_brackets() -> None:
    """The name that exists is offered."""
    code, message, hint = said(command("maps", ME, "stack"))
    assert (code, message) == (1, "no mapping is named 'stack'")
    assert hint == "did you mean '[stack]'?"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("[stak]", "did you mean '[stack]'?"),
        ("stack]", "did you mean '[stack]'?"),
        ("libc.so.6", "did you mean '*/libc.so.6'?"),
        ("libc.so6", "did you mean '*/libc.so.6'?"),
        ("libc.so", "did you mean '*libc.so*'?"),
        ("qqqqqq", "pagescan maps lists the names; * and ? are wildcards"),
    ],
)
def test_mapping_that_was_meant(word: str, meant: str) -> None:
    """The nearest name is offered, as a word that selects it."""
    code, message, hint = said(command("scan", ME, word))
    assert (code, message) == (1, f"no mapping is named {word!r}")
    assert hint == meant


def test_a_process_without_a_heap() -> None:
    """Many allocators use no [heap]: the hint names the memory that they use."""
    mapping = Mapping(0x1000, 0x2000, "rw-p", 0, (0, 0), 0, "")
    for word in ("[heap]", "heap", "[haep]"):
        with pytest.raises(PagescanError) as caught:
            Selection((), (word,)).check([mapping])
        assert caught.value.hint is not None
        assert "has no [heap]" in caught.value.hint
        assert "'[anon]'" in caught.value.hint


def test_a_slip_where_there_is_a_heap() -> None:
    """The process has one: the hint does not deny it."""
    mappings = [
        Mapping(start, start + 0x1000, "rw-p", 0, (0, 0), 0, name)
        for start, name in ((0x1000, "[heap]"), (0x4000, ""))
    ]
    for word, hint in (("[haep]", "did you mean '[heap]'?"), ("haep", "lists the")):
        with pytest.raises(PagescanError) as caught:
            Selection((), (word,)).check(mappings)
        assert caught.value.hint is not None
        assert hint in caught.value.hint


@pytest.mark.parametrize("words", [("maps",), ("watch", "-n", "1"), ("scan",)])
def test_label_in_place_of_a_name(words: tuple[str, ...]) -> None:
    """Tables of terminals show labels, and RANGE takes names: the hint says so."""
    code, message, hint = said(command(words[0], ME, "[v8 heap]", *words[1:]))
    assert (code, message) == (1, "no mapping is named '[v8 heap]'")
    assert hint == "pagescan maps lists the names; labels select nothing"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a folder in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "report folder",
        "diff folder folder",
        f"record {ME} -o folder",
        f"record {ME} -o folder --force",
        "watch --cmd-output folder -- true",
        f"who {ME} --format firefox -o folder",
        f"record {ME} -o nowhere/file",
        "report nowhere",
        "diff nowhere nowhere",
    ],
)
@pytest.mark.needs("tracking")
def test_wrong_paths(folder: Path, words: str) -> None:
    """A path of the wrong kind is a failure with exit code 1, whatever names it."""
    result = command(*words.split())
    code, message, _ = said(result)
    assert code == 1
    kind = "no such file" if "nowhere" in words else "is a directory"
    assert message.startswith("cannot ")
    assert kind in message
    assert os.listdir(folder) == ["folder"]


def test_folders_of_recordings(folder: Path) -> None:
    """The hint tells how a dataset, and how several recordings are read."""
    (folder / "folder/one.pagescan").touch()
    assert said(command("report", "folder"))[2].endswith("folder/*.pagescan")
    (folder / "folder/_pagescan.json").touch()
    assert said(command("report", "folder"))[2].endswith("report folder --fleet")


def test_recordings_and_processes(folder: Path) -> None:
    """A recording in place of a process, and the other way round."""
    (folder / "one.pagescan").touch()
    for name in ("diff", "watch", "record"):
        code, _, hint = said(command(name, "one.pagescan"))
        assert code == 3
        assert "a recording: pagescan report one.pagescan" in hint
    assert said(command("report", "one"))[2] == "did you mean one.pagescan?"
    hint = "pagescan record 4242 makes a recording of that process"
    assert said(command("report", "4242"))[2] == hint


def test_a_recording_that_a_process_writes(folder: Path) -> None:
    """The process that has the file in its command line is not what was meant."""
    (folder / "one.pagescan").touch()
    words = [sys.executable, "-c", "input()", "-o", "one.pagescan", "self"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as writer:
        try:
            hint = said(command("watch", "one.pagescan"))[2]
            assert "a recording: pagescan report one.pagescan" in hint
            assert "a shell's own pid is $$" in said(command("maps", "self"))[2]
        finally:
            writer.kill()


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("span", ["0s-2m", "0-2m", "0.0s-", "0ms-1h"])
def test_time_from_the_beginning(folder: Path, span: str) -> None:
    """Zero is a time since the beginning, with any unit."""
    words = ("record", "-o", "one.pagescan", "-n", 1, "-i", 0.1, "-q", "--", "sleep", 1)
    assert command(*words).code in (0, 143)
    assert command("report", "one.pagescan", "--time", span).code == 0
    code, message, _ = said(command("report", "one.pagescan", "--time", "0s-0s"))
    assert (code, message.startswith("not a time span")) == (2, True)
