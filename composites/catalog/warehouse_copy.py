"""Copy the shop into the warehouse and prove that the copy is the same: two transfers, then two comparisons."""

from composites import Composite

copy = Composite(
    "warehouse-copy",
    description="Replaces the warehouse's customers and orders by the shop's, and compares both tables row by row.",
    tags=["copy", "demo"],
)

customers = copy.step(
    "customers",
    "data_transfer_migration",
    source="sample",
    target="warehouse",
    objects=[{"sourceTable": "customers", "mode": "replace"}],
)
orders = copy.step(
    "orders",
    "data_transfer_migration",
    source="sample",
    target="warehouse",
    objects=[{"sourceTable": "orders", "mode": "replace"}],
)
same = copy.step(
    "compare",
    "data_compare_sync",
    source={"connection": "sample", "table": "{{item}}"},
    target={"connection": "warehouse", "table": "{{item}}"},
).map(over=["customers", "orders"], parallel=1)
report = copy.step(
    "report",
    "python",
    code="result = {c['source']['table']: c['summary']['unchanged'] for c in compared}",
    kwargs={"compared": "{{steps.compare.execution}}"},
)

customers >> orders >> same >> report
