"""The page on the command line, written by the command line itself when the site is built."""

import subprocess
import sys

from mkdocs.structure.files import File, Files


def on_files(files: Files, config) -> Files:
    """Add the page."""
    command = [sys.executable, "-m", "typer", "costmodel.cli", "utils", "docs", "--name", "costmodel"]
    page = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    files.append(File.generated(config, "reference/commands.md", content=page))
    return files
