"""A value that an option does not take: one plain line that names what it takes."""

import os

import click
import pytest

from pagescan.cli import COMMANDS, cli
from tests.conftest import command
from tests.refusal.test_refusals import refused

ME = os.getpid()
_OF_CLICK = (
    click.types.IntParamType,
    click.types.FloatParamType,
    click.types.BoolParamType,
)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("watch ME -n x", "--count: not a whole number of 1 or more: 'x'"),
        ("watch ME -n 0", "--count: not a whole number of 1 or more: '0'"),
        ("watch ME -n 1.5", "--count: not a whole number of 1 or more: '1.5'"),
        ("watch ME -i 0", "--interval: not a time above zero: '0'"),
        ("watch ME --duration -3", "--duration: not a time above zero: '-3'"),
        ("watch ME --budget x", "--budget: not a percentage: 'x' is not above 0"),
        ("watch ME --budget=", "--budget has an empty value"),
        ("watch ME --max-stall x", "--max-stall: not a time above zero: 'x'"),
        ("watch ME --max-tables x", "--max-tables: not a size: 'x'"),
        ("watch ME --color red", "--color: 'red' is not one of auto always never"),
        ("watch ME -i", "-i needs a value"),
        ("watch ME --tree=x", "--tree takes no value"),
        ("who ME --sample 0", "--sample: not a whole number from 1 to 1000000000: '0'"),
        ("who ME --by foo", "--by: 'foo' is not one of function line thread mapping"),
        ("cow ME -i x", "--interval: not a time above zero: 'x'"),
        ("record ME --rotate x", "--rotate: not a time above zero: 'x'"),
        ("record ME --rotate x", "hint: as in 30m or 2h, or never"),
        ("scan ME --max-pages 0", "--max-pages: not a whole number of 1 or more: '0'"),
        ("dump-plan ME --epoch -1", "--epoch: not a whole number of 0 or more: '-1'"),
        ("dump-plan ME 2", "dump-plan takes one TARGET, and nothing behind it: 2"),
        ("exporter -i x", "--interval: not a time above zero: 'x'"),
        ("report f --view migration --bandwidth x", "--bandwidth: not a size: 'x'"),
        ("demo --size x", "--size: not a size: 'x'"),
        ("demo --size 1M", "--size: the heap has at least 16M"),
        ("completion tcsh", "'tcsh' is not one of bash zsh fish"),
        ("completion bash zsh", "completion takes one SHELL, and nothing behind it"),
    ],
)
def test_a_bad_value(words: str, said: str) -> None:
    """The line names the option, what it takes, and what was given."""
    result = command(*words.replace("ME", str(ME)).split())
    refused(result, 2, said)
    assert "invalid value" not in result.stderr


def test_no_option_leaves_it_to_click() -> None:
    """Every option that takes a value is of pagescan's types, or takes any text."""
    with click.Context(cli) as context:
        for name in COMMANDS:
            loaded = cli.get_command(context, name)
            assert loaded is not None
            for param in loaded.params:
                words = isinstance(param.type, _OF_CLICK)
                simple = getattr(param, "is_flag", False) or getattr(param, "count", 0)
                assert simple or not words, (name, param.name)
