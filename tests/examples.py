"""The examples of docs/runtimes.md: whole playbooks, taken from the page itself so that it cannot rot.

The first line of each says whether it is run: `# Run by the tests: WITH WHAT`, or `# Not run by us: WHY IT SHOULD`.
"""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "runtimes.md"
RUN, NOT_RUN = "# Run by the tests: ", "# Not run by us: "
_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"^name: (\S+)$", re.MULTILINE)


def examples() -> dict[str, str]:
    """The text of each, by its name."""
    texts = _BLOCK.findall(PAGE.read_text())
    return {_NAME.findall(text)[0]: text for text in texts}
