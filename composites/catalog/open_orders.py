"""A conditional branch: many open orders are escalated, few are only noted, and both ways meet again."""

from composites import Composite

orders = Composite(
    "open-orders",
    description="Counts open orders and takes one of two ways by the result.",
    tags=["branch", "demo"],
    inputs={"limit": 1000},
)

count = orders.step(
    "count_open",
    "sql_script",
    connection="sample",
    sql="select count(*) as open_orders, count(*) > :limit as too_many from orders where status = 'open'",
    parameters={"limit": "{{inputs.limit}}"},
    fetch=1,
)
escalate = orders.step(
    "escalate", "shell", command=["echo", "{{steps.count_open.rows[0].open_orders}} orders are open: calling the shop"]
)
note = orders.step(
    "note", "shell", command=["echo", "{{steps.count_open.rows[0].open_orders}} orders are open, as usual"]
)
wrap_up = orders.step("wrap_up", "shell", command=["echo", "looked at the open orders"], join="any")

orders.edge(count, escalate, when="result.rows[0].too_many == 1")
orders.edge(count, note, when="result.rows[0].too_many == 0")
[escalate, note] >> wrap_up
