"""Makes the workload's files while the wheel is made, so that users need no compiler.

They are images for nodes, not extensions for this Python: the wheel stays `py3-none-any`. An sdist holds the sources
only, the wheel that is made from it builds them.
"""

from __future__ import annotations

import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WorkloadHook(BuildHookInterface):  # type: ignore[type-arg]  # what it is generic in is not ours
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # hatchling's signature
        if self.target_name != "wheel":
            return
        sys.path.insert(0, self.root)  # nothing is installed yet
        from coldstart.errors import ImageError
        from coldstart.workloads.build import BUILT, build

        try:
            build(BUILT)
        except ImageError as error:
            self.app.abort(str(error))
