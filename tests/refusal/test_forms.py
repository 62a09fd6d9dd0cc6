"""Each command, in each form of output, takes an output option or refuses it.

The commands run in this process on a pid that does not exist: an option that is refused
is refused before that.
"""

import itertools
from collections.abc import Iterator

import pytest

from pagescan.cli import run
from pagescan.commands import options

NOBODY = "4194303"
FORMS = {
    "table": [],
    "plain": [],
    "csv": ["--csv"],
    "json": ["--json"],
    "jsonl": ["--jsonl"],
}
OPTIONS = {
    "by": ["--by", "mapping"],
    "columns": ["-c", "start"],
    "sort": ["--sort", "start"],
    "header": ["--no-header"],
    "exact": ["--bytes"],
}
COMMANDS = {
    "scan": ["scan", NOBODY],
    "diff": ["diff", NOBODY],
    "maps": ["maps", NOBODY],
    "watch": ["watch", NOBODY],
    "dump-plan": ["dump-plan", NOBODY],
    "sessions": ["sessions"],
    "doctor": ["doctor"],
    "arm": ["arm", NOBODY],
    "disarm": ["disarm", NOBODY],
    "demo": ["demo", "--size", "1"],
    "who": ["who", NOBODY],
    "cow": ["cow", NOBODY],
    "record": ["record", NOBODY],
    "report": ["report", "/nowhere.pagescan"],
    "report --view heatmap": ["report", "/nowhere.pagescan", "--view", "heatmap"],
    "report --html": ["report", "/nowhere.pagescan", "--html", "/nowhere.html"],
    "diff OLD NEW": ["diff", "/old.pagescan", "/new.pagescan"],
    "exporter": ["exporter", "--listen", "unix:/nowhere/socket"],
}
TAKEN = {
    ("scan", "table"): "by columns sort header exact",
    ("scan", "plain"): "by columns sort header exact",
    ("scan", "csv"): "by columns sort header exact",
    ("scan", "json"): "by exact",
    ("scan", "jsonl"): "by exact",
    ("maps", "table"): "by columns sort header exact",
    ("maps", "plain"): "by columns sort header exact",
    ("maps", "csv"): "by columns sort header exact",
    ("maps", "json"): "by exact",
    ("maps", "jsonl"): "by exact",
    ("watch", "table"): "",
    ("watch", "plain"): "by columns sort header exact",
    ("watch", "csv"): "by columns sort header exact",
    ("watch", "json"): "by exact",
    ("watch", "jsonl"): "by exact",
    ("dump-plan", "table"): "columns header exact",
    ("dump-plan", "plain"): "columns header exact",
    ("dump-plan", "csv"): "columns header exact",
    ("dump-plan", "json"): "exact",
    ("dump-plan", "jsonl"): "exact",
    ("sessions", "table"): "header exact",
    ("sessions", "plain"): "header exact",
    ("sessions", "csv"): "header exact",
    ("sessions", "json"): "exact",
    ("sessions", "jsonl"): "exact",
    ("doctor", "csv"): "header",
    ("who", "table"): "by header exact",
    ("who", "plain"): "by header exact",
    ("who", "csv"): "by header exact",
    ("who", "json"): "by exact",
    ("report", "table"): "header exact",
    ("report", "plain"): "header exact",
    ("report", "csv"): "header exact",
    ("report", "json"): "exact",
    ("report --view heatmap", "csv"): "header exact",
    ("report --view heatmap", "json"): "exact",
    ("diff OLD NEW", "table"): "header exact",
    ("diff OLD NEW", "plain"): "header exact",
    ("diff OLD NEW", "csv"): "header exact",
    ("diff OLD NEW", "json"): "exact",
}
for _like, _name in (("scan", "diff"), ("who", "cow")):
    TAKEN.update(
        {(_name, form): taken for (like, form), taken in TAKEN.items() if like == _like}
    )
NO_FORM = {
    "arm": "csv",
    "disarm": "csv",
    "demo": "csv",
    "who": "jsonl",
    "cow": "jsonl",
    "report": "jsonl",
    "report --view heatmap": "jsonl",
    "report --html": "csv json jsonl",
    "diff OLD NEW": "jsonl",
    "record": "csv json jsonl",
    "exporter": "csv json jsonl",
}
"""The forms that a command does not have."""


def cases() -> Iterator[tuple[str, str, str]]:
    """Yield every command with every form and every option."""
    for name, form, option in itertools.product(COMMANDS, FORMS, OPTIONS):
        if form not in NO_FORM.get(name, "").split():
            yield name, form, option


@pytest.mark.parametrize(("name", "form", "option"), list(cases()))
def test_option_is_taken_or_refused(
    name: str,
    form: str,
    option: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A refused option is a usage error that names the option."""
    monkeypatch.setattr(options, "form_for_stdout", lambda: form)
    taken = option in TAKEN.get((name, form), "").split()
    if taken and name == "doctor":
        monkeypatch.setattr("pagescan.commands.doctor.checks", lambda: ([], True))
    code = run([*COMMANDS[name], *FORMS[form], *OPTIONS[option]])
    said = capsys.readouterr()
    spelled = {"columns": ("--columns", "-c")}.get(option, (OPTIONS[option][0],))
    refused = code == 2 and any(word in said.err for word in spelled)
    assert refused != taken, (code, said)


@pytest.mark.parametrize(
    ("name", "form"),
    [(name, form) for name, forms in NO_FORM.items() for form in forms.split()],
)
def test_form_that_a_command_does_not_have_is_refused(
    name: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names it."""
    assert run([*COMMANDS[name], f"--{form}"]) == 2
    assert f"--{form}" in capsys.readouterr().err


@pytest.mark.parametrize("words", [*OPTIONS.values(), ["--csv"]], ids=str)
def test_protecting_without_a_list_takes_no_option_of_lists(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """--wp-only prints a summary alone."""
    assert run(["scan", NOBODY, "--wp-only", *words]) == 2
    assert "does not go with --wp-only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["watch", "--oldest", "--", "true"], "--oldest chooses a TARGET"),
        (["watch", NOBODY, "--cmd-output", "x"], "--cmd-output needs -- CMD"),
        (["diff", "--oldest"], "give TARGET"),
        (["disarm", "--oldest"], "give TARGET"),
        (["disarm", "--all", "--oldest"], "give TARGET"),
        (["disarm", "--all", NOBODY], "exclude each other"),
        (["dump-plan", NOBODY, "--ack", "1", "--json"], "--ack prints nothing"),
        (["dump-plan", NOBODY, "--ack", "1", "--csv"], "--ack prints nothing"),
        (["dump-plan", NOBODY, "--ack", "1", "-c", "start"], "--ack prints nothing"),
        (["dump-plan", NOBODY, "--ack", "1", "--binary"], "--ack makes no plan"),
        (["dump-plan", NOBODY, "--ack", "1", "--epoch", "1"], "--ack makes no plan"),
        (["dump-plan", NOBODY, "--binary", "-c", "start"], "with --binary"),
        (["dump-plan", NOBODY, "--binary", "--no-header"], "with --binary"),
        (["dump-plan", NOBODY, "--binary", "--bytes"], "with --binary"),
        (["dump-plan", NOBODY, "--binary", "--csv"], "exclude each other"),
        (["maps", NOBODY, "--ask-runtime", "-c", "start"], "needs the column label"),
        (["who", "--oldest", "--", "true"], "--oldest chooses a TARGET"),
        (["who", NOBODY, "--callers", "--by", "line"], "exclude each other"),
        (["who", NOBODY, "--python", "--callers"], "exclude each other"),
        (["who", NOBODY, "--python", "--by", "line"], "exclude each other"),
        (["who", NOBODY, "--format", "firefox"], "--format and -o go together"),
        (["who", NOBODY, "-o", "x"], "--format and -o go together"),
        (
            ["who", NOBODY, "--by", "page", "--format", "firefox", "-o", "/dev/null"],
            "--format goes with --by function",
        ),
        (["record", "--oldest", "--", "true"], "--oldest chooses a TARGET"),
        (["record", NOBODY, "--last", "1m", "--rotate", "1h"], "does not go with it"),
        (["report", "x", "--bandwidth", "1G"], "need --view migration"),
        (["report", "x", "--downtime", "1s"], "need --view migration"),
        (["report", "x", "--html", "y", "--view", "ages"], "takes no --view"),
        (["diff", "x", "y", "--since-wp"], "--since-wp is for TARGET"),
        (["diff", "x", "y", "--rearm"], "--rearm is for TARGET"),
        (["diff", "x", "y", "--oldest"], "--oldest is for TARGET"),
        (["diff", "x", "y", "--max-stall", "1ms"], "--max-stall is for TARGET"),
        (["exporter", "--textfile", "x", "--listen", ":1"], "exclude each other"),
        (["exporter", "--textfile", "x", "--web-config", "y"], "exclude each other"),
        (["exporter", "--oldest"], "--oldest chooses the TARGET of --tree"),
        (["exporter", "--by", "option"], "--by option needs an option"),
        (["exporter", "--track"], "select some"),
        (["exporter", "--budget", "2"], "--budget has no effect"),
        (["exporter", "--no-restore-huge"], "--no-restore-huge has no effect"),
        (["exporter", "--max-tables", "1M"], "--max-tables has no effect"),
        (["exporter", "-i", "5"], "--interval has no effect"),
        (["exporter", "--interval", "10"], "--interval has no effect"),
    ],
)
def test_option_without_effect_is_refused(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An option that the other options make meaningless is refused, not ignored."""
    monkeypatch.setattr(options, "form_for_stdout", lambda: "plain")
    monkeypatch.setattr("sys.argv", ["pagescan", *words])
    assert run(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "option"),
    [
        *((name, "-c") for name in ("scan", "maps", "diff", "watch", "dump-plan")),
        *((name, "--sort") for name in ("scan", "maps", "diff", "watch")),
    ],
)
def test_unknown_column_is_said_before_the_target_is_touched(
    name: str,
    option: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The pid does not exist, and yet the column is what is said."""
    monkeypatch.setattr(options, "form_for_stdout", lambda: "plain")
    assert run([name, NOBODY, option, "start,nothing"]) == 2
    said = capsys.readouterr().err
    assert "unknown column: 'nothing'" in said
    assert "there are: start" in said
