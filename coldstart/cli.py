"""The command line: one function per verb, each a sentence. Results on stdout, everything else on stderr.

Heavy libraries are imported by the verb that needs them: `--help` and shell completion must start at once.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from coldstart import __version__, completion, options
from coldstart.errors import ColdstartError
from coldstart.prepare import TASKS

if TYPE_CHECKING:
    from coldstart.store import Store
    from coldstart.sweeping import Job


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="coldstart")
def main() -> None:
    """How fast, how heavy and how reclaimable is a function's shrink wrap - process, container, unikernel, virtual
    machine - on your machines?

    \b
    Start with:  coldstart sweep inventories/local.yaml
    """


@main.command()
@options.selection
@options.STORE
@options.FORMAT
@click.option("--resume", metavar="RUN", shell_complete=completion.runs, help="Go on with a run that was cut short.")
@click.option("--dry-run", is_flag=True, help="Show what would run and how long it would take; touch nothing.")
@click.option("--max-failures", type=click.IntRange(0), default=0, show_default=True, help="More failed boots: exit 3.")
@options.ACCEPT
@options.RECONNECT
@options.RATE
def sweep(store: Path | None, format_: str, resume: str | None, *, dry_run: bool, **given: Any) -> None:
    """Measure every target of a playbook on every node of INVENTORY.

    INVENTORY is a file in Ansible's YAML format, or the name of a shipped one.
    """
    from coldstart import sweeping
    from coldstart.reach import Reach

    max_failures, reconnect_s = given.pop("max_failures"), given.pop("reconnect")
    reach = Reach(accept_new_host_keys=given.pop("accept_new_host_keys"))
    rate = options.rate(given.pop("push_rate"))
    wanted = options.chosen(given)
    if dry_run:
        _print_plan(sweeping.load(wanted), "json" if format_ == "json" else "table")
        return
    sweeping.load(wanted)  # what is wrong with the documents is said before a store is made
    with sweeping.open_store(store) as opened:
        job = sweeping.load(wanted, seed=sweeping.seed_of(opened, resume))
        outcome = sweeping.sweep(job, opened, reach, resume=resume, reconnect_s=reconnect_s, push_bytes_per_s=rate)
        if outcome.run:
            _print_run(opened, outcome.run, format_)
    outcome.judge(max_failures)


@main.command()
@options.selection
@click.option("--format", "format_", type=click.Choice(("table", "json")), default="table", show_default=True)
def plan(format_: str, **given: Any) -> None:
    """Show what a sweep would run, and about how long it would take. Nothing is touched."""
    from coldstart import sweeping

    _print_plan(sweeping.load(options.chosen(given)), format_)


@main.command()
@options.INVENTORY
@options.PLAYBOOK
@options.LIMIT
@click.option("--target", "targets", metavar="NAME", multiple=True, help="Only this target's; repeatable.")
@options.image
@options.LISTED
@options.ACCEPT
@options.RECONNECT
@options.RATE
def push(format_: str, *, accept_new_host_keys: bool, reconnect: int, push_rate: str | None, **given: Any) -> None:
    """Bring the images of a playbook to every node of INVENTORY that lacks them, and nothing else.

    A sweep does the same by itself. What is there already is not sent again.
    """
    from coldstart import pushing, sweeping
    from coldstart.reach import Reach
    from coldstart.report import pushed

    job = sweeping.load(options.chosen(given, default_port=80))
    reach = Reach(accept_new_host_keys=accept_new_host_keys)
    result = pushing.push(job, reach, reconnect_s=reconnect, bytes_per_s=options.rate(push_rate))
    _print(pushed.as_json(result.pushed) if format_ == "json" else pushed.as_table(result.pushed, width=_width()))
    result.judge()


@main.command("inventory")
@options.INVENTORY
@options.LIMIT
@options.LISTED
def inventory_(inventory: str, limit: str | None, format_: str) -> None:
    """Show the nodes of INVENTORY with their groups and variables, as they are understood. Nothing is touched.

    INVENTORY may be `-`: what `ansible-inventory --list` prints. The JSON has the same shape.
    """
    from coldstart import inventory as inventories
    from coldstart.report import inventoried

    found = inventories.load(inventories.find(inventory))
    nodes = inventories.select(found, limit) if limit else found.nodes
    as_json = format_ == "json"
    _print(inventoried.as_json(nodes, found.groups) if as_json else inventoried.as_table(nodes, width=_width()))


@main.command()
@options.STORE
@click.option("--format", "format_", type=click.Choice(("table", "json")), default="table", show_default=True)
def runs(store: Path | None, format_: str) -> None:
    """List the runs in the store, newest first."""
    from coldstart import sweeping
    from coldstart.report import runs as listing

    with sweeping.open_store(store, readonly=True) as opened:
        found = opened.runs()
    _print(listing.as_json(found) if format_ == "json" else listing.as_table(found, width=_width()))


@main.command()
@options.RUN
@options.STORE
@options.FORMAT
def show(run: str, store: Path | None, format_: str) -> None:
    """Show the results of RUN: `latest`, or the beginning of its id."""
    from coldstart import sweeping

    with sweeping.open_store(store, readonly=True) as opened:
        _print_run(opened, run, format_)


@main.command()
@options.RUN
@options.STORE
@click.option("--format", "format_", type=click.Choice(("jsonl", "csv")), default="jsonl", show_default=True)
def export(run: str, store: Path | None, format_: str) -> None:
    """Write every single boot of RUN, one per line."""
    from coldstart import sweeping
    from coldstart.report import csv, jsonl

    with sweeping.open_store(store, readonly=True) as opened:
        found = opened.find(run).id
        write = jsonl.lines if format_ == "jsonl" else csv.boots
        for line in write(found, opened.boots(found)):
            _print(line + "\n")


@main.command()
@options.INVENTORY
@options.LIMIT
@click.option("--run", metavar="RUN", help="Only what this run has left.")
@click.option("--all", "everything", is_flag=True, help="What any dead run has left (the default).")
@click.option("--images", is_flag=True, help="Also the images that were pushed to the nodes.")
@options.ACCEPT
def clean(
    inventory: str, limit: str | None, run: str | None, *, everything: bool, images: bool, accept_new_host_keys: bool
) -> None:
    """Remove what killed runs have left on the nodes: only what bears our mark. A running sweep is refused."""
    from coldstart import sweeping

    if run and everything:
        raise click.UsageError("--run and --all exclude each other")
    from coldstart.reach import Reach

    reach = Reach(accept_new_host_keys=accept_new_host_keys)
    for line in sweeping.clean(sweeping.nodes(inventory, limit), run or "", reach, also_images=images):
        _print(line + "\n")


@main.command()
@click.argument("inventory", shell_complete=completion.shipped_files("inventories"))
@click.option("--limit", metavar="PATTERN", help="Only these nodes.")
@options.LISTED
@options.ACCEPT
def check(inventory: str, limit: str | None, format_: str, *, accept_new_host_keys: bool) -> None:
    """Connect to every node and say what stands in the way of measuring there, and how to mend it.

    Nothing of yours is changed; what a killed run of coldstart has left is removed, and named.
    """
    from coldstart import checking, sweeping
    from coldstart.reach import Reach
    from coldstart.report import checked

    results = checking.check(sweeping.nodes(inventory, limit), Reach(accept_new_host_keys=accept_new_host_keys))
    _print(checked.as_json(results) if format_ == "json" else checked.as_text(results, width=_width()))
    checking.judge(results)


@main.command()
@options.INVENTORY
@click.argument("tasks", metavar="[TASK]...", nargs=-1, type=click.Choice(TASKS))
@options.LIMIT
@click.option("--yes", is_flag=True, help="Do it without asking.")
@options.LISTED
@options.ACCEPT
def prepare(
    inventory: str, tasks: tuple[str, ...], limit: str | None, format_: str, *, yes: bool, accept_new_host_keys: bool
) -> None:
    """Make bare nodes ready for measuring: install and enable what `check` misses there.

    Without --yes it shows what it would do, and asks for each node if there is a terminal. Nothing is removed,
    restarted or rebooted. TASK: python, docker, podman, qemu, groups, memory-cgroup; all that apply unless named.
    """
    from coldstart import preparing, sweeping
    from coldstart.report import prepared

    nodes = sweeping.nodes(inventory, limit)
    done = preparing.Preparation(nodes, tasks, accept_new_host_keys=accept_new_host_keys)
    try:
        open_ = preparing.to_do(done.look())
        agreed = [result.node for result in open_ if yes or _agreed(prepared.as_text([result], width=_width()))]
        results = done.carry_out(agreed)
    finally:
        done.close()
    _print(prepared.as_json(results) if format_ == "json" else prepared.as_text(results, width=_width()))
    if open_ and not agreed:
        click.echo("coldstart: nothing was changed; to do it: --yes", err=True)
    done.judge()


def _agreed(plan: str) -> bool:
    """Asked only where somebody can answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    click.echo(plan, err=True)
    return click.confirm("Do this?", err=True)


@main.group()
def images() -> None:
    """The images that come with coldstart."""


@images.command("list")
@options.LISTED
def images_list(format_: str) -> None:
    """List every file of the images that are built; on stderr, what is not and why."""
    from coldstart.images import built
    from coldstart.report import imagelist

    found, missing = built()
    rows = [dataclasses.asdict(image) for image in found]
    _print(imagelist.as_json(rows) if format_ == "json" else imagelist.as_table(rows, width=_width()))
    for reason in missing:
        click.echo(reason, err=True)


@images.command("build")
@click.option(
    "--kernel",
    metavar="PATH",
    type=click.Path(exists=True, path_type=Path),
    help="Linux for hello-vm, from now on: a Debian package linux-image-..., or a folder with boot/ and lib/modules/.",
)
@options.LISTED
@click.pass_context
def images_build(context: click.Context, kernel: Path | None, format_: str) -> None:
    """Build them from their sources, then list them.

    It needs the Python package ziglang, unless an installed wheel has brought what is compiled. hello-vm is built here
    in any case, from the kernel of this machine's distribution or the one given.
    """
    from coldstart.images import build_all

    build_all(kernel)
    context.invoke(images_list, format_=format_)


@main.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion_(shell: str) -> None:
    """Print the completion script for a shell: `eval "$(coldstart completion bash)"`."""
    _print(completion.script(main, shell) + "\n")


def _print(text: str) -> None:
    """To stdout. Whoever reads it may have had enough: `coldstart export | head` is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _print_run(store: Store, reference: str, format_: str) -> None:
    from coldstart import report
    from coldstart.report import document

    run = store.find(reference)
    nodes = document.Nodes(store.starts(run.id), store.pushes(run.id), store.facts(run.id), store.lost(run.id))
    built = document.build(run, store.cells(run.id), nodes, store=str(store.path))
    _print(report.render(built, format_, width=_width(), colour=sys.stdout.isatty()))


def _print_plan(job: Job, format_: str) -> None:
    from coldstart import sweeping
    from coldstart.report import planned

    what, estimate_ns = job.plan, sweeping.estimate_ns(job.plan, job.playbook)
    _print(
        planned.as_json(what, estimate_ns) if format_ == "json" else planned.as_table(what, estimate_ns, width=_width())
    )


def _width() -> int | None:
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def entry() -> NoReturn:
    """The console script: every error is one line, with the exit code of its kind."""
    try:
        main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except ColdstartError as error:
        click.echo(f"coldstart: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)
