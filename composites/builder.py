"""Writing a composite in Python. The object is inert: importing it starts nothing. (spec 3.1)

>>> from composites import Composite
>>> sales = Composite("nightly-sales", tags=["sales"])
>>> copy = sales.step("copy", "shell", command=["true"], retries=2)
>>> check = sales.step("check", "shell", command=["true"])
>>> alarm = sales.step("alarm", "shell", command=["true"], join="any_failed")
>>> copy >> check
Step('check')
>>> [copy, check] >> alarm
Step('alarm')
>>> Composite.from_dict(sales.to_dict()) == sales
True
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from taskcenter.errors import Problem, SetupError, ValidationFailed
from taskcenter.jsonable import to_jsonable
from taskcenter.task_types import registry

from .model import CompositeSpec, EdgeSpec, StepSpec
from .plan import Plan, make_plan
from .validate import Known, check
from .walk import Overrides

if TYPE_CHECKING:
    from .engine import CompositeResult

__all__ = ["Composite", "Step", "StepGroup"]

_STEP_OPTIONS: Final = {
    "on_error", "enabled", "join", "retries", "retry_backoff_ms", "map_over", "map_parallel", "map_max_items",
    "tolerance", "priority", "name", "position",
}  # fmt: skip
"""Keyword arguments of ``Composite.step`` that describe the step; every other one is a field of its payload."""


class Step:
    """A handle on one step, for drawing edges: ``a >> b``, ``a >> [b, c] >> d``, ``[a, b] >> c``."""

    def __init__(self, composite: Composite, key: str) -> None:
        self.composite = composite
        self.key = key

    def __repr__(self) -> str:
        return f"Step({self.key!r})"

    def __rshift__(self, other: Any) -> Any:
        return StepGroup(self.composite, [self]) >> other

    def __rrshift__(self, other: Iterable[Step]) -> Step:
        StepGroup(self.composite, list(other)) >> self
        return self

    def map(self, over: Any, *, parallel: int | None = None, tolerance: int = 0, max_items: int = 1_000) -> Step:
        """Run once per item of ``over`` (a list or a template that gives one); ``{{item}}`` is the item."""
        self.composite._change(
            self.key,
            map_over=to_jsonable(over, root=f"{self.key}.mapOver"),
            map_parallel=parallel,
            tolerance=tolerance,
            map_max_items=max_items,
        )
        return self


class StepGroup(list[Step]):
    """Several steps that stand on one side of ``>>``."""

    def __init__(self, composite: Composite, steps: Iterable[Step]) -> None:
        super().__init__(steps)
        self.composite = composite

    def __rshift__(self, other: Any) -> Any:
        if isinstance(other, str):  # a step key; as a list it would be its letters
            other = Step(self.composite, other.strip())
        targets = [other] if isinstance(other, Step) else list(other)
        for source in self:
            for target in targets:
                self.composite.edge(source, target)
        return other if isinstance(other, Step) else StepGroup(self.composite, targets)

    def __rrshift__(self, other: Iterable[Step]) -> StepGroup:
        StepGroup(self.composite, list(other)) >> self
        return self


class Composite:
    """A graph of steps. Settings are those of spec 3.3 and 3.5.

    ``max_parallel``: how many steps run at once; ``sequential``: a graph without edges runs by position, one
    after another; ``halt_mode``: ``wait`` lets running steps finish when the composite stops, ``cancel`` ends them.
    """

    def __init__(
        self,
        name: str,
        *,
        description: str | None = None,
        tags: Iterable[str] = (),
        inputs: Mapping[str, Any] | None = None,
        continue_on_error: bool = False,
        fail_on_any_error: bool = True,
        max_parallel: int = 8,
        sequential: bool = False,
        halt_mode: str = "wait",
    ) -> None:
        self._head = CompositeSpec(
            name=name,
            description=description,
            tags=tuple(t.strip().lower() for t in tags if t.strip()),
            inputs=to_jsonable(dict(inputs or {}), root="inputs"),
            continue_on_error=continue_on_error,
            fail_on_any_error=fail_on_any_error,
            max_parallel=max_parallel,
            sequential=sequential,
            halt_mode=halt_mode,
        )
        self._steps: list[StepSpec] = []
        self._edges: list[EdgeSpec] = []
        self._at: dict[str, int] = {}

    @property
    def name(self) -> str:
        return self._head.name

    @property
    def spec(self) -> CompositeSpec:
        """The composite as frozen data."""
        return replace(self._head, steps=tuple(self._steps), edges=tuple(self._edges))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Composite) and self.spec == other.spec

    __hash__ = None  # type: ignore[assignment]  # it grows while it is written

    def __repr__(self) -> str:
        return f"Composite({self.name!r}, {len(self._steps)} steps, {len(self._edges)} edges)"

    # writing -----------------------------------------------------------------------------------------

    def step(
        self,
        key: str,
        task_type: str | None = None,
        *,
        task: str | None = None,
        payload: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> Step:
        """Add a step of a task type, or one that runs the saved task ``task``.

        ``timeout`` is seconds per attempt. Keyword arguments that are not options of a step are fields of its
        payload: ``step("check", "sql_script", sql="select 1", connection="dw", retries=2)``.
        """
        options = {name: fields.pop(name) for name in list(fields) if name in _STEP_OPTIONS}
        options.setdefault("position", len(self._steps))
        if "map_over" in options:
            options["map_over"] = to_jsonable(options["map_over"], root=f"{key.strip()}.mapOver")
        spec = StepSpec(
            step_key=key.strip(),
            task_type=task_type,
            referenced_task_id=task,
            payload=to_jsonable({**(payload or {}), **fields}, root=f"{key.strip()}.payload"),
            timeout_seconds=timeout,
            **options,
        )
        self._at.setdefault(spec.step_key, len(self._steps))
        self._steps.append(spec)
        return Step(self, spec.step_key)

    def edge(self, source: Step | str, target: Step | str, when: str = "success") -> None:
        """Draw an edge; ``when`` is success, failed, done, skipped, always or an expression on ``result``."""
        for end in (source, target):
            if isinstance(end, Step) and end.composite is not self:
                raise SetupError(f"the step {end.key!r} belongs to the composite {end.composite.name!r}")
        ends = [end.key if isinstance(end, Step) else end.strip() for end in (source, target)]
        self._edges.append(EdgeSpec(ends[0], ends[1], when.strip() or "success"))

    def group(self, name: str, steps: Iterable[Step]) -> StepGroup:
        """Name some steps as belonging together; the group takes edges like a list."""
        members = StepGroup(self, steps)
        for member in members:
            self._change(member.key, group=name)
        return members

    def _change(self, key: str, **values: Any) -> None:
        at = self._at[key]
        self._steps[at] = replace(self._steps[at], **values)

    # reading -----------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The stored JSON form."""
        return self.spec.to_dict()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Composite:
        """From the stored form; raises ValidationFailed with every malformed field."""
        return cls.from_spec(CompositeSpec.from_dict(data))

    @classmethod
    def from_spec(cls, spec: CompositeSpec) -> Composite:
        made = cls(spec.name)
        made._head = replace(spec, steps=(), edges=())
        made._steps, made._edges = list(spec.steps), list(spec.edges)
        for i, step in enumerate(spec.steps):
            made._at.setdefault(step.step_key, i)
        return made

    # asking ------------------------------------------------------------------------------------------

    def check(self, known: Known | None = None) -> list[Problem]:
        """Every problem, errors and warnings; empty when all is well. Needs no server."""
        return list(check(self.spec, known or Known(find_type=registry.find, type_names=registry.keys)).problems)

    def plan(self, inputs: Mapping[str, Any] | None = None, **more: Any) -> Plan:
        """What it would do; raises ValidationFailed when it has problems. Needs no server, executes nothing."""
        errors = [p for p in self.check() if p.severity == "error"]
        if errors:
            raise ValidationFailed(f"the composite {self.name!r}", errors)
        return make_plan(self.spec, find_type=registry.find, inputs=inputs, **more)

    def run(self, inputs: Mapping[str, Any] | None = None, overrides: Overrides = Overrides()) -> CompositeResult:
        """Run it here and now in this process, without Prefect and without a record. For trying things out."""
        from .local import run_here

        self.plan(inputs)
        return run_here(self.spec, inputs=inputs, overrides=overrides)

    def to_flow(self) -> Any:
        """A Prefect flow named like the composite.

        This room knows nothing of Prefect: the entry point ``flow`` of the group ``taskcenter.composites`` does.
        """
        from importlib.metadata import entry_points

        makers: list[Callable[[CompositeSpec], Any]] = [
            point.load() for point in entry_points(group="taskcenter.composites", name="flow")
        ]
        if not makers:
            raise SetupError("nothing here turns composites into flows: install taskcenter with its entry points")
        return makers[0](self.spec)
