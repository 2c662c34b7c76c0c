"""Help, version, completion, and what a mistyped command gets."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest

from outgrow.cli import group
from tests.cli.conftest import COMMAND, environment, fails, run


def test_help_lists_every_command() -> None:
    outcome = run("--help")
    assert outcome.code == 0
    for name, entry in group.COMMANDS.items():
        assert name in outcome.out and entry.summary[:30] in outcome.out
    assert "\x1b[" not in outcome.out, "no colour where there is no terminal"


@pytest.mark.parametrize("name", group.COMMANDS)
def test_every_command_has_help_and_json(name: str) -> None:
    command: click.Command = importlib.import_module(f"outgrow.cli.{group.COMMANDS[name].module}").command
    assert command.help and command.help[0].isupper()
    assert "--json" in {option for each in command.params for option in each.opts}
    assert all(getattr(each, "help", None) for each in command.params if isinstance(each, click.Option))


@pytest.mark.parametrize("name", group.COMMANDS)
def test_the_help_of_every_command(name: str) -> None:
    outcome = run(name, "--help")
    assert outcome.code == 0 and outcome.out.startswith(f"Usage: outgrow {name}")
    assert "--json" in outcome.out and "-h, --help" in outcome.out


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from outgrow.cli.run import run; run(['--help'])\n"
        "print(sorted(m for m in sys.modules if m.startswith(('outgrow.', 'rich', 'sqlalchemy', 'asyncio'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    loaded = done.stdout.splitlines()[-1]
    assert "outgrow.cli.up" not in loaded and "outgrow.topology" not in loaded
    assert "rich" not in loaded and "sqlalchemy" not in loaded and "asyncio" not in loaded


def test_version() -> None:
    outcome = run("--version")
    assert outcome.code == 0 and outcome.out.startswith("outgrow 0.")


def test_the_installed_script_is_the_same_command() -> None:
    script = Path(sys.executable).with_name("outgrow")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == run("--version").out


def test_a_mistyped_command_gets_the_nearest() -> None:
    assert "did you mean 'status'" in fails("statsu", code=2)


def test_a_mistyped_option_gets_the_nearest() -> None:
    said = fails("up", "--detatch", code=2)
    assert "--detach" in said and "outgrow up --help" in said


def test_misuse_as_json() -> None:
    outcome = run("up", "--port", "many", "--json")
    assert outcome.code == 2 and not outcome.err
    error = outcome.document["error"]
    assert error["kind"] == "Misuse" and error["exit_code"] == 2 and "many" in error["message"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    outcome = run("completion", shell)
    assert outcome.code == 0 and "_OUTGROW_COMPLETE" in outcome.out
    assert run("completion", shell, "--json").document["script"].strip() == outcome.out.strip()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("outgrow sta", "status"),
        ("outgrow up --det", "--detach"),
        ("outgrow up --stage sep", "separate-database"),
        ("outgrow completion f", "fish"),
    ],
)
def test_completion_completes(typed: str, expected: str) -> None:
    words = typed.split(" ")
    variables = {"COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1), "_OUTGROW_COMPLETE": "bash_complete"}
    done = subprocess.run(COMMAND, capture_output=True, text=True, env=environment(**variables), check=False)
    assert expected in done.stdout, done


def test_bash_accepts_the_script(tmp_path: Path) -> None:
    (tmp_path / "outgrow.bash").write_text(run("completion", "bash").out)
    line = "source outgrow.bash && complete -p outgrow"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr and done.stdout.rstrip().endswith(" outgrow")


def test_completion_of_nodes(tmp_path: Path) -> None:
    logs = tmp_path / ".outgrow" / "logs"
    logs.mkdir(parents=True)
    (logs / "postgres.log").touch()
    variables = {"COMP_WORDS": "outgrow logs po", "COMP_CWORD": "2", "_OUTGROW_COMPLETE": "bash_complete"}
    done = subprocess.run(
        COMMAND, cwd=tmp_path, capture_output=True, text=True, env=environment(**variables), check=False
    )
    assert "postgres" in done.stdout, done


def test_a_reader_that_goes_away_is_no_error() -> None:
    line = f"{sys.executable} -m outgrow.cli completion bash | head -n 1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=environment(), check=True)
    assert not done.stderr
