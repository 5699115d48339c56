import subprocess
import sys

import pytest

import vidpool
from vidpool.cli import VERBS, main


def test_help_lists_the_verbs(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    for verb in VERBS:
        assert f"\n  {verb} " in printed


def test_an_unknown_verb_lists_the_known(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["tarin"])
    assert stopped.value.code == 2
    assert "invalid choice: 'tarin'" in capsys.readouterr().err


def test_version_as_a_module():
    command = [sys.executable, "-m", "vidpool", "--version"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed == f"vidpool {vidpool.__version__}\n"


def test_data_demo_refuses_a_folder_with_other_things(tmp_path, capsys):
    (tmp_path / "thesis.txt").touch()
    assert main(["data", "demo", "--output", str(tmp_path)]) == 1
    assert f"{tmp_path} exists and is no demo data set" in capsys.readouterr().err
