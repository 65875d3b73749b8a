"""Every parser of the node's texts over recorded texts: a JSON file a case (`parser`, `text`, `expected`, `source`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coldstart.agent import facts, floors, resources, subnets, survey, surveyparse

CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))
PARSERS = {
    name: getattr(module, name)
    for module in (facts, floors, resources, subnets, surveyparse)
    for name in dir(module)
    if name.startswith("parse_")
}


def plain(value):
    """As JSON would have it."""
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if isinstance(value, str | int | None) else str(value)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_recorded(path):
    """The text gives what is in it."""
    case = json.loads(path.read_text())
    assert plain(PARSERS[case["parser"]](case["text"])) == case["expected"]


def test_every_parser_has_a_case():
    """A fact is a text and a parser, and neither is there without the other."""
    assert {json.loads(path.read_text())["parser"] for path in CASES} == set(PARSERS)


@pytest.mark.parametrize("name", sorted(set(PARSERS) - {"parse_start_time"}))
def test_nothing_is_no_error(name):
    """A file that is not there reads as an empty text."""
    assert not PARSERS[name]("")


def test_this_node():
    """The facts are texts, and those that every Linux has are there."""
    found = facts.facts()
    assert {"arch", "kernel", "python", "cpus", "memory_bytes", "cgroup", "user"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())


def test_a_survey_of_this_node(tmp_path):
    """Texts, and what every Linux can tell; whatever runs here is only looked at."""
    found = survey.survey({"coldstart_docker_host": "unix:///nowhere"}, str(tmp_path))
    assert {"userland_bits", "clock", "user_name", "disk_free_bytes", "kvm_device", "net_admin"} <= set(found)
    assert found["docker"] == "absent"
    assert all(isinstance(value, str) and value for value in found.values())
    assert survey.survey({"coldstart_docker_host": "tcp://x"}, str(tmp_path))["docker"] == "refused"
