"""Completion in real shells: keys are typed into bash, zsh and fish, in tmux."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from pagescan.cli import COMMANDS
from pagescan.model.memory import CATEGORY_NAMES
from tests import witness
from tests.conftest import Target, command

Start = Callable[..., Target]
PROGRAMS = Path(sys.executable).parent
SHELLS = {
    "bash": "exec bash --norc --noprofile -i",
    "zsh": "exec zsh -f -i",
    "fish": "exec fish --no-config -i",
}
LOAD = {
    "bash": 'eval "$(pagescan completion bash)"',
    "zsh": 'eval "$(pagescan completion zsh)"',
    "fish": "pagescan completion fish | source",
}


def candidates(line: str, *, shell: str = "bash") -> dict[str, str]:
    """Return what is offered at the end of a line, with the explanations."""
    env = {"_PAGESCAN_COMPLETE": f"{shell}_complete", "PAGESCAN_LINE": line}
    result = command(env=env)
    assert result.stderr == ""
    rows = [row.split("\t") for row in result.stdout.splitlines() if row]
    return {value: explained for _, value, explained in rows}


@pytest.fixture
def program(target: Start, tmp_path: Path) -> Target:
    """A target with a name of its own, and a mapping whose name has blanks."""
    backing = tmp_path / "two words.db"
    return target("m=anon,pages=4", f"f=file,pages=4,shared=1,file={backing}")


def test_commands_are_offered_with_their_help() -> None:
    assert candidates("pagescan ") == COMMANDS
    assert list(candidates("pagescan wat")) == ["watch"]


def with_target() -> list[str]:
    """Return the commands whose first word is a target that needs no session."""
    found = []
    for name in COMMANDS:
        module = import_module(f"pagescan.commands.{name.replace('-', '_')}")
        for argument in module.command.params:
            metavar = argument.metavar or ""
            if isinstance(argument, click.Argument) and "TARGET" in metavar:
                found.append(name)
    return sorted({*found} - {"diff", "disarm"})


@pytest.mark.parametrize("verb", with_target())
def test_targets_are_offered_by_name(verb: str, program: Target) -> None:
    """A name says which process it is, or how many have it; a digit asks for pids."""
    offered = candidates(f"pagescan {verb} mkm")
    assert list(offered) == ["mkmem"]
    assert str(program.pid) in offered["mkmem"] or "--oldest takes" in offered["mkmem"]
    pids = candidates(f"pagescan {verb} {str(program.pid)[:2]}")
    assert pids[str(program.pid)] == "mkmem"


def test_commands_with_a_target() -> None:
    """Otherwise the test above would look at nothing."""
    assert {"watch", "arm", "scan", "maps", "who", "cow", "record"} <= {*with_target()}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (
            ["bash", "-c"],
            'eval "$(pagescan completion bash)"; COMP_LINE="pagescan maps xyzzy"'
            " COMP_POINT=${#COMP_LINE} COMP_WORDS=(pagescan maps xyzzy) COMP_CWORD=2;"
            " _pagescan_completion; echo ${#COMPREPLY[@]}",
        ),
        (
            ["fish", "--no-config", "-c"],
            "pagescan completion fish | source;"
            " count (complete -C 'pagescan maps xyzzy')",
        ),
    ],
    ids=["bash", "fish"],
)
def test_a_word_without_a_candidate_stays(words: list[str], code: str) -> None:
    """An empty candidate would take its place."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]}")
    env = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    done = subprocess.run(
        [*words, code], capture_output=True, text=True, env=env, check=False
    )
    assert done.stdout == "0\n"


def test_kernel_threads_and_pagescan_are_not_offered() -> None:
    """Neither can be a target by its name."""
    names = candidates("pagescan watch ")
    assert not {"kthreadd", "pagescan"} & set(names)
    assert "2" not in candidates("pagescan watch 2")


@pytest.fixture
def named() -> Iterator[Callable[[str], None]]:
    """Starts processes with any name."""
    code = (
        "import ctypes, sys; ctypes.CDLL(None).prctl(15, sys.argv[1].encode())\n"
        "print(flush=True); sys.stdin.read()"
    )
    with contextlib.ExitStack() as end:

        def start(name: str) -> None:
            words = [sys.executable, "-c", code, name]
            pipe = subprocess.PIPE
            process = end.enter_context(
                subprocess.Popen(words, stdin=pipe, stdout=pipe)
            )
            end.callback(process.communicate)
            assert process.stdout is not None
            process.stdout.readline()

        yield start


def test_a_name_with_lines_is_not_offered(named: Callable[[str], None]) -> None:
    """Each line would pass for a candidate of its own."""
    named("evil\nplain\tx;y")
    named("evident")
    assert list(candidates("pagescan watch evi")) == ["evident"]


@pytest.mark.parametrize("quote", ["'", '"'])
def test_no_name_ends_the_quotes_of_bash(
    quote: str, named: Callable[[str], None]
) -> None:
    """Root is offered the programs of all users, and does not run what they say."""
    for name in ("evi';reboot '", 'evi";reboot "', "evi$(reboot)", "evi`reboot`"):
        named(name)
    named("evident one")
    code = (
        'eval "$(pagescan completion bash)"; COMP_LINE="pagescan maps $1"'
        ' COMP_POINT=${#COMP_LINE} COMP_WORDS=(pagescan maps "$1") COMP_CWORD=2;'
        " _pagescan_completion; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    env = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    offered = subprocess.run(
        ["bash", "-c", code, "bash", f"{quote}evi"],
        capture_output=True,
        text=True,
        env=env,
        check=True,
    )
    assert offered.stdout == "evident one\n"


@pytest.mark.parametrize("verb", ["watch", "arm", "scan", "maps"])
def test_mappings_are_those_of_the_target_on_the_line(
    verb: str, program: Target
) -> None:
    """Their names as maps prints them, each once."""
    offered = set(candidates(f"pagescan {verb} {program.pid} "))
    rows = command("maps", program.pid, "--json").json()["mappings"]
    assert offered == {row["mapping"] for row in rows}
    assert any(name.endswith("/two words.db") for name in offered)
    assert "[stack]" in candidates(f"pagescan {verb} {program.pid} '[st")


def test_sessions_are_offered_where_one_is_needed(armed: Start, target: Start) -> None:
    """`diff` and `disarm` want a target that is tracked."""
    made, other = armed("m=anon,pages=4"), target("m=anon,pages=4")
    for verb in ("diff", "disarm"):
        offered = candidates(f"pagescan {verb} ")
        assert offered.get(str(made.pid)) == "mkmem"
        assert str(other.pid) not in offered
    assert candidates(f"pagescan diff {made.pid} ") == {}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("scan 1 -c sta", ["start"]),
        ("scan 1 -c start,en", ["start,end"]),
        ("scan 1 -c +pe", ["+perms"]),
        ("scan 1 --columns=off", []),
        ("scan 1 --by mapping --columns=off", ["offset"]),
        ("maps 1 --sort ps", ["pss"]),
        ("maps 1 --sort -ps", ["-pss"]),
        ("maps 1 --sort start,-ps", ["start,-pss"]),
        ("watch 1 -c tic", ["tick"]),
        ("dump-plan 1 -c pl", ["plan"]),
        ("scan 1 --require wri", ["written"]),
        ("scan 1 --any=file,pre", ["file,present"]),
        ("scan 1 --exclude file,fil", []),
        ("diff --by ma", ["mapping"]),
        ("completion f", ["fish"]),
        ("scan 1 --retu", ["--return"]),
        ("watch nobody-has-this-name [", []),
    ],
)
def test_columns_categories_and_values(line: str, offered: list[str]) -> None:
    """Behind a comma the words already typed stay, and are not offered again."""
    assert list(candidates(f"pagescan {line}")) == offered


def test_every_category_is_offered() -> None:
    assert list(candidates("pagescan scan 1 --return ")) == [
        name for _, name in CATEGORY_NAMES
    ]


# ---- keys in real shells -----------------------------------------------------------


class Shell:
    """A shell in a tmux window, with the completion loaded."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.socket = str(folder / "tmux")
        home = folder / "home"
        home.mkdir()
        path = f"{PROGRAMS}:{os.environ['PATH']}"
        start = f"cd {home}; HOME={home} PATH={path} PS1='> ' {SHELLS[name]}"
        self.tmux("new-session", "-d", "-x", "160", "-y", "50", start)
        self.type(f"{LOAD[name]}; echo LOA''DED\n")
        witness.wait_for(lambda: "LOADED" in self.screen(), 30)
        self.tmux("send-keys", "C-l")

    def tmux(self, *words: str) -> str:
        words = ("tmux", "-u", "-S", self.socket, "-f", "/dev/null", *words)
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    def type(self, text: str) -> None:
        """Type a text; a newline and a tab are the keys."""
        for part in (
            text.replace("\n", "\0Enter\0").replace("\t", "\0Tab\0").split("\0")
        ):
            words = (part,) if part in ("Enter", "Tab") else ("-l", "--", part)
            if part:
                self.tmux("send-keys", *words)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-J")

    def completes(self, line: str, shown: str) -> None:
        """Type a line with a tab in it, and wait for a text on the screen."""
        self.type(line)
        witness.wait_for(lambda: shown in self.screen(), 20)
        self.tmux("send-keys", "C-u")


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.needs(name)) for name in SHELLS]
)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    made = Shell(request.param, tmp_path)
    yield made
    subprocess.run(
        ["tmux", "-S", made.socket, "kill-server"], capture_output=True, check=False
    )


@pytest.mark.needs("tmux")
def test_keys_in_a_real_shell(shell: Shell, program: Target) -> None:
    """A tab completes a command, a target, a mapping, a column and a category."""
    shell.completes("pagescan dump\t", "pagescan dump-plan")
    shell.completes("pagescan scan mkm\t", "pagescan scan mkmem")
    shell.completes(f"pagescan scan {program.pid} --requ\t", "--require")
    shell.completes(f"pagescan scan {program.pid} --require wri\t", "--require written")
    shell.completes("pagescan maps 1 -c start,pfn\t", "-c start,pfnzero")
    shell.completes("pagescan maps 1 --sort -pss\t -q", "--sort -pss")


@pytest.mark.needs("tmux")
def test_names_that_the_shell_would_read_are_quoted(
    shell: Shell, program: Target, tmp_path: Path
) -> None:
    """The name reaches pagescan as it is: brackets are no pattern, a blank no end."""
    (tmp_path / "home" / "s").touch()  # [stack] as a pattern would be this file
    # Without a quote zsh itself expands a pattern, before it completes anything.
    stacks = ["'[stac"] if shell.name == "zsh" else ["'[stac", "[stac"]
    cases = [(typed, "[stack]") for typed in stacks]
    cases.append((f"{tmp_path}/two", f"{tmp_path}/two words.db"))
    for number, (typed, name) in enumerate(cases):
        end = f"--csv --no-header -c mapping; echo CO''DE{number}"
        shell.completes(
            f"pagescan maps {program.pid} {typed}\t{end}\n", f"\nCODE{number}"
        )
        assert f"\n{name}\nCODE{number}" in shell.screen()


@pytest.mark.needs("tmux")
def test_words_of_a_command_are_completed_by_the_shell(shell: Shell) -> None:
    """Behind -- the shell's own completion of programs and files takes over."""
    shell.type("touch a-long-name\n")
    shell.completes("pagescan watch -- mkfif\t", "-- mkfifo")
    shell.completes("pagescan watch -- cat a-lo\t", "cat a-long-name")
