"""Shell completion: what could stand here. Nothing that is slow, and never an error: completing is a courtesy."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from coldstart import shipped
from coldstart.errors import ColdstartError

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def script(program: click.Command, shell: str) -> str:
    """What the user's shell must evaluate once."""
    kind = get_completion_class(shell)
    assert kind is not None, shell
    return kind(program, {}, "coldstart", "_COLDSTART_COMPLETE").source()


def shipped_files(kind: shipped.Kind) -> Completer:
    """Shipped names, or files."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        known = [CompletionItem(name) for name in shipped.names(kind) if name.startswith(incomplete)]
        return known or [CompletionItem(incomplete, type="file")]

    return complete


def files(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Whatever lies there."""
    return [CompletionItem(incomplete, type="file")]


def runs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Run ids of the store, with their playbook."""
    from coldstart.store import Store, default_path

    path = context.params.get("store") or os.environ.get("COLDSTART_STORE") or default_path()
    try:
        with Store.open(Path(path), readonly=True) as store:
            known = store.runs()
    except ColdstartError:
        return []
    return [CompletionItem(run.id, help=run.playbook) for run in known if run.id.startswith(incomplete)]


def limits(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Hosts and groups of the inventory that is already on the line, for the last word of a pattern."""
    from coldstart import inventory

    # An option that still waits for its value ends click's reading: what came before is left over.
    given = context.params.get("inventory") or next(iter(context.args), None)
    if not given or given == inventory.STDIN:
        return []
    begun, word = re.fullmatch("(.*[,:&!])?(.*)", incomplete, re.DOTALL).groups("")  # type: ignore[union-attr]
    try:
        found = inventory.load(inventory.find(given))
    except ColdstartError:
        return []
    groups = [CompletionItem(begun + group.name, help="group") for group in found.groups if group.name.startswith(word)]
    return groups + [CompletionItem(begun + n.name, help=n.site) for n in found.nodes if n.name.startswith(word)]
