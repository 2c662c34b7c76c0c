"""The generated documents are up to date, and the script notices when they are not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest

from outgrow.stages import LADDER
from outgrow.topology import parse
from outgrow.topology.model import Section
from tests.support.source import ROOT

SCRIPT = ROOT / "scripts" / "docs.py"


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("outgrow_docs", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documents_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_stale_is_named_and_then_written(
    docs: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("before\n<!-- stages -->\nold\n<!-- /stages -->\nafter\n")
    assert docs.main(["--check"], tmp_path) == 1
    told = capsys.readouterr().err
    for name in ("README.md", "docs/stages.md", "docs/configuration.md", "docs/outgrow.schema.json"):
        assert f"{name} is not up to date" in told
    assert "old" in (tmp_path / "README.md").read_text(), "a check changes nothing"
    assert docs.main([], tmp_path) == 0
    assert docs.main(["--check"], tmp_path) == 0
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith("before\n<!-- stages -->\n| |") and readme.endswith(
        "|\n<!-- /stages -->\nafter\n"
    )
    assert all(stage.title in readme for stage in LADDER)


def test_a_readme_without_the_marks_is_left_alone(docs: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("mine\n")
    assert docs.main([], tmp_path) == 0
    assert (tmp_path / "README.md").read_text() == "mine\n"


def test_every_stage_and_every_proof_is_in_the_document() -> None:
    text = (ROOT / "docs" / "stages.md").read_text()
    for stage in LADDER:
        anchor = f"(#{stage.number}-{stage.title.lower().replace(' ', '-')})"
        assert f"\n## {stage.number}. {stage.title}\n" in text and anchor in text
        assert stage.problem in text and stage.cost in text
        assert all(promise.says in text for promise in stage.promises)
    assert text.count("Not built yet") == sum(not stage.built for stage in LADDER)


def test_every_key_is_in_the_manual() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    topology = parse("")
    for name in topology.__struct_fields__:
        section = getattr(topology, name)
        if isinstance(section, Section):
            assert all(
                f"\n### {name}.{key}" in text or f"[{name}.{key}]" in text
                for key in section.__struct_fields__
            )


def test_the_schema_on_disk_is_a_schema() -> None:
    schema = msgspec.json.decode((ROOT / "docs" / "outgrow.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert jsonschema.Draft202012Validator(schema).is_valid({"stage": 2})
