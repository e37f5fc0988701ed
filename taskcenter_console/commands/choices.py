"""The options that ``run`` and ``plan`` share: the payload, and what one run does differently. (spec 3.9)"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from .common import assignments, payload_of

if TYPE_CHECKING:
    from taskcenter.options import RunOptions

__all__ = ["Choices", "choices"]

_STEPS = {
    "skip": "Skip this step.",
    "hold": "Hold this step: it and what needs it do not run.",
    "fail": "Treat this step as failed without running it.",
    "only": "Run only this step.",
    "from": "Run this step and everything after it.",
    "downstream-of": "Run what comes after this step.",
}


@dataclass(frozen=True)
class Choices:
    """What was chosen for one run."""

    payload: dict[str, Any] | None
    given: dict[str, Any]

    def options(self) -> RunOptions | None:
        """None when nothing was chosen, so that the models need not be imported."""
        if not self.given:
            return None
        from taskcenter_console.services.options import parse_options

        return parse_options(self.given)


def choices(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options to a command, which gets them as ``chosen``."""

    @functools.wraps(function)
    def call(
        *args: Any,
        payload: str | None,
        payload_file: str | None,
        pairs: Sequence[str],
        step_pairs: Sequence[str],
        resume: str | None,
        mode: str | None,
        step: str | None,
        plan_hash: str | None,
        **values: Any,
    ) -> Any:
        given: dict[str, Any] = {}
        for name in _STEPS:
            keys = values.pop(name.replace("-", "_"))
            if keys:
                given["downstreamOf" if name == "downstream-of" else name] = list(keys)
        if step_pairs:
            given["set"] = assignments(step_pairs, "--step-set")
        if resume is None and (mode or step):
            raise click.UsageError("--mode and --step belong to --resume RUN.")
        if mode in ("from", "downstream", "alone") and step is None:
            raise click.UsageError(f"--mode {mode} needs --step STEP.")
        named = {"resume": resume, "resumeMode": mode, "resumeStep": step, "planHash": plan_hash}
        given.update({name: value for name, value in named.items() if value is not None})
        return function(*args, chosen=Choices(payload_of(payload, payload_file, pairs), given), **values)

    add = [
        click.option("--payload", metavar="JSON", help="Fields of the payload (inputs of a composite) for this run."),
        click.option("--payload-file", metavar="FILE", help="The same from a JSON or YAML file; - is stdin."),
        click.option(
            "--set", "pairs", multiple=True, metavar="KEY=VALUE", help="One field of the payload; repeatable."
        ),
        *(
            click.option(f"--{name}", name.replace("-", "_"), multiple=True, metavar="STEP", help=f"{text} Repeatable.")
            for name, text in _STEPS.items()
        ),
        click.option(
            "--step-set",
            "step_pairs",
            multiple=True,
            metavar="STEP.KEY=VALUE",
            help="One field of a step's payload; repeatable.",
        ),
        click.option("--resume", metavar="RUN", help="Reuse the results of this run where they still stand."),
        click.option(
            "--mode",
            type=click.Choice(["failed", "from", "downstream", "alone"]),
            help="With --resume: what runs again. Default: failed, what did not succeed.",
        ),
        click.option("--step", metavar="STEP", help="With --resume: the step that from, downstream and alone mean."),
        click.option("--plan", "plan_hash", metavar="HASH", help="Refuse when the plan of now has another hash."),
    ]
    for option in reversed(add):
        call = option(call)
    return call
