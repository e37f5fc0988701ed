"""``taskcenter init``: a small project to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from taskcenter.errors import Refused, SetupError
from taskcenter_console.terminal import emit, say

from .common import Out, output

__all__ = ["FILES", "init"]

_COMPOSITE = '''"""Two greetings side by side, then a report; and a line that is only written when a greeting fails."""

from composites import Composite

hello = Composite(
    "hello",
    description="Greets twice and reports; shows the project's own task type.",
    tags=["example"],
    inputs={"who": "world"},
)

english = hello.step("english", "greet", who="{{inputs.who}}", word="Hello")
french = hello.step("french", "greet", who="{{inputs.who}}", word="Bonjour")
report = hello.step(
    "report",
    "shell",
    command=["echo", "{{steps.english.execution.text}} / {{steps.french.execution.text}}"],
)
alarm = hello.step("alarm", "shell", command=["echo", "a greeting failed"], join="any_failed")

[english, french] >> report
[english, french] >> alarm
'''

_TASK_TYPE = '''"""A task type is a plain function; the annotations of its parameters make the check and the form."""

from taskcenter import RunContext, task_type


@task_type("greet", title="Greet", category="example")
def greet(who: str, ctx: RunContext, word: str = "Hello") -> dict[str, str]:
    """Writes a greeting into the run's log and returns it."""
    text = f"{word}, {who}!"
    ctx.output(text)
    return {"text": text}
'''

_README = """# A Task Center project

`composites/` holds composites, `task_types/` the task types of this project. From this folder:

    taskcenter plan composites/example.py      # what it would do; no server is needed
    taskcenter up                              # starts everything and saves the composites here
    taskcenter run hello --set who=you        # in a second shell: runs it and shows how it goes
"""

FILES = {"composites/example.py": _COMPOSITE, "task_types/example.py": _TASK_TYPE, "README.md": _README}
"""What a starter project holds."""


@click.command()
@click.argument("folder", metavar="DIR", default=".")
@output
def init(folder: str, out: Out) -> None:
    """Make a starter project in DIR (default: this folder): a composite, a task type and a README.

    Nothing is overwritten: refused, with nothing written, when one of the files is there already.
    """
    root = Path(folder).expanduser()
    there = [name for name in FILES if (root / name).exists()]
    if there:
        raise Refused(
            f"{root.absolute()} holds {', '.join(there)} already; nothing was written. Choose another folder."
        )
    written: list[Path] = []
    try:
        for name, text in FILES.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(file, "x", encoding="utf-8") as stream:
                written.append(file)
                stream.write(text)
    except OSError as error:
        for file in written:
            file.unlink(missing_ok=True)
        raise SetupError(
            f"{root.absolute()} cannot be written ({error.strerror or error}); nothing was kept. Choose another folder."
        ) from None
    if out.json:
        emit({"folder": str(root.absolute()), "files": list(FILES)})
        return
    for name in FILES:
        say(name if out.quiet else f"+ {root / name}")
    if not out.quiet:
        enter = "" if root.absolute() == Path.cwd() else f"  cd {folder}\n"
        say(f"\nNext:\n{enter}  taskcenter plan composites/example.py\n  taskcenter up\n  taskcenter run hello")
