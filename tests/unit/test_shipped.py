"""Names find shipped files from any folder, and a user's own file always goes first."""

import subprocess
import sys

import pytest

from coldstart import shipped
from coldstart.errors import UsageError


def test_ships_an_inventory_and_a_playbook():
    assert "local" in shipped.names("inventories")
    assert "quick" in shipped.names("playbooks")


@pytest.mark.parametrize("given", ["quick", "quick.yaml", "playbooks/quick.yaml", "playbooks/quick"])
def test_a_shipped_file_is_found_from_any_folder(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped.find("playbooks", given) == shipped.path("playbooks", "quick")


def test_the_users_file_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "playbooks").mkdir()
    mine = tmp_path / "playbooks" / "quick.yaml"
    mine.write_text("mine")
    assert shipped.find("playbooks", "playbooks/quick.yaml").read_text() == "mine"
    assert shipped.find("playbooks", str(mine)) == mine


def test_a_folder_does_not_hide_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick").mkdir()
    assert shipped.find("playbooks", "quick").is_file()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("quikc", "quikc: no such file (did you mean 'quick'? shipped playbooks: "),
        ("../etc", "../etc: no such file (shipped playbooks: "),
        ("other/quick.yaml", "other/quick.yaml: no such file ("),
        (".", ".: is a folder (name a file in it)"),
    ],
)
def test_says_what_there_is(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        shipped.find("playbooks", given)
    assert str(error.value).startswith(message)
    assert error.value.exit_code == 2


def test_an_unknown_name_has_no_path():
    with pytest.raises(KeyError):
        shipped.path("playbooks", "none")


def test_the_wheels_folder_goes_before_the_one_beside_the_package(tmp_path):
    """site-packages may hold an `inventories` of somebody else's."""
    package = tmp_path / "coldstart"
    (tmp_path / "inventories").mkdir()
    assert shipped.folder("inventories", package) == tmp_path / "inventories"
    (package / "shipped" / "inventories").mkdir(parents=True)
    assert shipped.folder("inventories", package) == package / "shipped" / "inventories"


def test_help_stays_quick():
    """What the command line needs before it knows its verb loads neither pydantic nor ruamel."""
    code = "import sys, coldstart.plan, coldstart.model, coldstart.shipped, coldstart.units; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "ruamel.yaml", "numpy"} & set(loaded)
