"""The options of all verbs: one spelling, and the checkpoint first."""

import re

import pytest

from vidpool.cli import VERBS, main

COMMANDS = [
    command
    for name, verb in VERBS.items()
    for command in ([[name, what] for what in verb.subcommands] or [[name]])
]
TAKE_CHECKPOINT = {
    *("predict", "import", "export"),
    *("show activations", "show embedding", "show saliency"),
}


def help_of(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_options_have_one_spelling_and_the_checkpoint_comes_first(command, capsys):
    text = help_of(command, capsys)
    options = re.findall(r"^ +(?:-\w\b.*?, )?--([\w.-]+)", text, flags=re.MULTILINE)
    assert "help" in options
    assert [option for option in options if "-" in option] == []
    assert not {"out", "workers", "data.workers"} & set(options)
    positional = re.search(r"^positional arguments:\n +(\S+)", text, flags=re.MULTILINE)
    first = positional[1] if positional else None
    assert (first == "CKPT") == (" ".join(command) in TAKE_CHECKPOINT)
    evaluates = command[0] in ("fit", "validate", "test")
    assert ("ckpt_path" in options) == evaluates


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("data demo --output x --num-workers 2", "--num-workers 2; did you mean --num_workers?"),
        ("data check --config data/demo --num-workers 2", "--num-workers; did you mean --num_w"),
        ("export a.ckpt --out x.pth", "the following arguments are required: --output"),
        ("export a.ckpt --outptu x.pth --output y.pth", "--outptu x.pth; did you mean --output?"),
        ("models --jso", "unrecognized arguments: --jso; did you mean --json?"),
        ("models --zzz", "unrecognized arguments: --zzz; see vidpool models --help"),
    ],
)
def test_an_unrecognized_option_is_told_in_one_line(command, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(command.split())
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
