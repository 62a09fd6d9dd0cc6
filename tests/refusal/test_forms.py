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
    ("watch", "plain"): "by columns header exact",
    ("watch", "csv"): "by columns header exact",
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
}
TAKEN.update(
    {("diff", form): taken for (name, form), taken in TAKEN.items() if name == "scan"}
)
WITHOUT_CSV = {"arm", "disarm", "demo"}


def cases() -> Iterator[tuple[str, str, str]]:
    """Yield every command with every form and every option."""
    for name, form, option in itertools.product(COMMANDS, FORMS, OPTIONS):
        if form != "csv" or name not in WITHOUT_CSV:
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


@pytest.mark.parametrize("name", sorted(WITHOUT_CSV))
def test_csv_is_refused_where_there_are_no_rows(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """These commands print no rows."""
    assert run([*COMMANDS[name], "--csv"]) == 2
    assert "--csv" in capsys.readouterr().err


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
        *((name, "--sort") for name in ("scan", "maps", "diff")),
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
