"""The `lossk` command. Everything it needs beside torch comes with the extra `lossk[demo]`."""

import sys
from importlib.util import find_spec


def require(*packages: str) -> None:
    """Exit with one line that says what to install where a package is missing."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        sys.exit(f"lossk: missing {', '.join(missing)}; install with: pip install 'lossk[demo]'")


def main() -> None:
    """Entry point of `lossk` and of `python -m lossk.cli`."""
    require("typer", "rich")
    from .app import app

    app(prog_name="lossk")
