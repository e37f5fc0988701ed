"""Finds composites in Python and JSON files: the catalogue, a project's own ``composites/`` folder, one file.

A broken file is reported by name with its line and never hides the others. (spec 3.1, 1.5)
"""

from __future__ import annotations

import importlib.util
import json
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from taskcenter.errors import NotFound, Problem, TaskCenterError, ValidationFailed

from .builder import Composite
from .model import CompositeSpec

__all__ = ["CATALOG", "Broken", "Found", "catalog", "find", "load_file"]

CATALOG = Path(__file__).parent / "catalog"


@dataclass(frozen=True)
class Found:
    """A composite and the file it stands in."""

    spec: CompositeSpec
    file: Path


@dataclass(frozen=True)
class Broken:
    """A file that could not be read, and the sentence that says why."""

    file: Path
    message: str


def load_file(file: Path) -> list[CompositeSpec]:
    """Every composite of a ``.py`` or ``.json`` file; raises NotFound or ValidationFailed with file and line."""
    if not file.is_file():
        raise NotFound(f"there is no file {file}", path=str(file))
    found = _from_json(file) if file.suffix == ".json" else _from_python(file)
    if not found:
        raise ValidationFailed(str(file), [Problem("no_composite", "", "the file defines no Composite")])
    return found


def _from_json(file: Path) -> list[CompositeSpec]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValidationFailed(str(file), [Problem("not_text", "", f"is not UTF-8 text: {error.reason}")]) from None
    except ValueError as error:
        raise ValidationFailed(str(file), [Problem("not_json", "", f"is not JSON: {error}")]) from None
    except RecursionError:
        raise ValidationFailed(str(file), [Problem("not_json", "", "is nested too deeply")]) from None
    items = data if isinstance(data, list) else [data]
    return [CompositeSpec.from_dict(item, name=file.stem) for item in items]


def _from_python(file: Path) -> list[CompositeSpec]:
    name = f"taskcenter_composite_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ValidationFailed(str(file), [Problem("not_python", "", "is not a Python file")])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except TaskCenterError:
        raise
    except SyntaxError as error:
        problem = Problem("syntax", f"line {error.lineno}", f"{error.msg}: {(error.text or '').strip()}")
        raise ValidationFailed(str(file), [problem]) from None
    except (Exception, SystemExit) as error:  # the file is the user's own code and may raise anything at all
        line = _line_in(file, error)
        raise ValidationFailed(str(file), [Problem("import", line, f"{type(error).__name__}: {error}")]) from None
    finally:
        sys.modules.pop(name, None)
    seen: dict[int, CompositeSpec] = {id(v): v.spec for v in vars(module).values() if isinstance(v, Composite)}
    return list(seen.values())


def _line_in(file: Path, error: BaseException) -> str:
    """The last line of the user's file that the error passed through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    return f"line {lines[-1]}" if lines else ""


def catalog(*folders: Path) -> tuple[list[Found], list[Broken]]:
    """Every composite of the bundled catalogue and of ``folders``; the first of two with one name wins."""
    found: dict[str, Found] = {}
    broken: list[Broken] = []
    for file in _files(CATALOG, *folders):
        try:
            specs = load_file(file)
        except TaskCenterError as error:
            broken.append(Broken(file, error.message))
            continue
        for spec in specs:
            if spec.name in found and found[spec.name].file != file:
                other = found[spec.name].file
                broken.append(Broken(file, f"the name {spec.name!r} is used by {other} already; this one is left out"))
            else:
                found[spec.name] = Found(spec, file)
    return list(found.values()), broken


def _files(*folders: Path) -> Iterator[Path]:
    package = CATALOG.parent.resolve()
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        # in a checkout of this project, the folder composites/ is this package and holds no composites of its own
        if folder.is_dir() and folder != package:
            yield from sorted(f for f in folder.glob("*.py") if not f.name.startswith("_"))
            yield from sorted(folder.glob("*.json"))


def find(name: str, *folders: Path) -> Found:
    """One composite by its name; raises NotFound with the names there are."""
    found, broken = catalog(*folders)
    for item in found:
        if item.spec.name == name:
            return item
    names = ", ".join(sorted(item.spec.name for item in found)) or "none"
    lost = "".join(f"\n  {item.file}: {item.message}" for item in broken)
    raise NotFound(f"there is no composite {name!r}; there are: {names}{lost}", name=name)
