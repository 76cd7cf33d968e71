"""Run a Markdown page's blocks in order, in the working directory: `python run_blocks.py page.md`.

Python blocks share one namespace. Of a shell block, `pitwise init` is run and `cd` is followed; every
other `pitwise` command is only parsed, for a whole run takes minutes.

Prints JSON: for each Python block, what it printed and the text block behind it (None where there is
none).
"""

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import typer

from pitwise import cli

BLOCK = re.compile(r"```(python|sh|text)\n(.*?)```", re.DOTALL)


def parse(command: list[str]) -> None:
    """Raise click's error for a command or an option that there is not."""
    group = typer.main.get_command(cli.app)
    group.commands[command[0]].make_context(command[0], command[1:])


def shell(line: str) -> None:
    program, *arguments = shlex.split(line, comments=True)
    if program == "cd":
        os.chdir(arguments[0])
    elif program == "pitwise" and arguments[0] == "init":
        subprocess.run([sys.executable, "-m", "pitwise.cli", *arguments], check=True, stdout=sys.stderr)
    elif program == "pitwise":
        parse(arguments)
    else:
        raise ValueError(f"what is `{line}`?")


def main() -> None:
    page = Path(sys.argv[1]).read_text()
    cli.add_commands(cli.app, list(entry_points(group=cli.GROUP)))
    namespace: dict = {"__name__": "page"}
    shown: list[dict] = []
    made = Path.cwd()
    for kind, text in BLOCK.findall(page):
        if kind == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(text, sys.argv[1], "exec"), namespace)
            shown.append({"code": text, "printed": printed.getvalue(), "wanted": None})
        elif kind == "text":
            shown[-1]["wanted"] = text
        else:
            for line in text.strip().splitlines():
                if line.startswith("cd runs/"):  # what a run makes
                    (made / "my-desk" / line.removeprefix("cd ")).mkdir(parents=True, exist_ok=True)
                shell(line)
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
