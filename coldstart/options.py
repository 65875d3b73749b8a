"""Options of the command line that several verbs share, and what they mean together. click's third door."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coldstart import completion, shipped

if TYPE_CHECKING:
    from coldstart.sweeping import Selection

FORMATS = ("table", "json", "csv", "markdown")
FORMAT = click.option("--format", "format_", type=click.Choice(FORMATS), default="table", show_default=True)
STORE = click.option(
    "--store",
    type=click.Path(dir_okay=True, path_type=Path),
    envvar="COLDSTART_STORE",
    show_envvar=True,
    help="SQLite file with all results.  [default: $XDG_STATE_HOME/coldstart/coldstart.db]",
)
LISTED = click.option("--format", "format_", type=click.Choice(("table", "json")), default="table", show_default=True)
ACCEPT = click.option(
    "--accept-new-host-keys",
    is_flag=True,
    help="Take and keep the host key of a node that has none in known_hosts. A changed key is refused all the same.",
)
INVENTORY = click.argument("inventory", shell_complete=completion.shipped_files("inventories"))
PLAYBOOK = click.option(
    "--playbook",
    metavar="NAME|FILE",
    default="quick",
    show_default=True,
    shell_complete=completion.shipped_files("playbooks"),
    help=f"What to measure. Shipped: {', '.join(shipped.names('playbooks'))}.",
)
LIMIT = click.option(
    "--limit",
    metavar="PATTERN",
    shell_complete=completion.limits,
    help="Only these nodes: names, groups, globs, !not, &and.",
)
RECONNECT = click.option("--reconnect", metavar="SECONDS", type=click.IntRange(0), default=120, show_default=True,
                          help="How long to try to have a lost node back.")  # fmt: skip
RUN = click.argument("run", metavar="[RUN]", default="latest", shell_complete=completion.runs)


_OWN_IMAGE = (
    click.option(
        "--image",
        metavar="FILE|TAG",
        shell_complete=completion.files,
        help="Your own image in place of the playbook's targets: an archive, an OCI layout, a tag.",
    ),
    click.option("--port", type=click.IntRange(1, 65535), help="Of --image: where it answers HTTP once it is ready."),
    click.option("--path", default="/", show_default=True, help="Of --image: what is asked for; 200 is ready."),
    click.option("--runtime", default="docker", show_default=True, help="Of --image: what starts it."),
)
RATE = click.option("--push-rate", metavar="SIZE", help="Push at most so much a second, to all nodes together: 10MiB.")


def image(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OWN_IMAGE):
        command = option(command)
    return command


def selection(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments that say what to measure, shared by `sweep` and `plan`."""
    for option in reversed(
        [
            INVENTORY,
            PLAYBOOK,
            LIMIT,
            click.option("--target", "targets", metavar="NAME", multiple=True, help="Only this target; repeatable."),
            click.option("--start", "starts", metavar="KIND", multiple=True, help="Only this start kind; repeatable."),
            click.option("--boots", type=int, help="Boots per trial, instead of the playbook's."),
            click.option("--seed", type=click.IntRange(0), help="Seed of the order; random unless given, and stored."),
        ]
    ):
        command = option(command)
    return image(command)


def chosen(options: dict[str, Any], default_port: int | None = None) -> Selection:
    """The options that say what to measure. default_port: for whoever does not start the image."""
    from coldstart import ownimage, sweeping

    image, port, path, runtime = (options.pop(name) for name in ("image", "port", "path", "runtime"))
    if image is None and (port is not None or path != "/" or runtime != "docker"):
        raise click.UsageError("--port, --path and --runtime are about --image")
    own = ownimage.OwnImage(image, port or default_port, path, runtime) if image is not None else None
    return sweeping.Selection(**options, image=own)


def rate(text: str | None) -> int:
    """Bytes in a second; 0: no limit."""
    from coldstart.units import parse_size_bytes

    if text is None:
        return 0
    try:
        if rate := parse_size_bytes(text):
            return rate
    except ValueError as error:
        raise click.UsageError(f"--push-rate: {error}") from None
    raise click.UsageError(f"--push-rate: {text} would be no push at all; without it there is no limit")
