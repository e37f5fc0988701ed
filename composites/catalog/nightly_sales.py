"""Nightly sales: count the source, copy it, check that the copy is whole, and raise the alarm when it is not."""

from composites import Composite

sales = Composite(
    "nightly-sales",
    description="Counts the shop's orders, builds the daily figures, checks them, raises the alarm on failure.",
    tags=["sales", "demo"],
    inputs={"since": "2025-01-01"},
)

before = sales.step(
    "snapshot_counts",
    "sql_script",
    connection="sample",
    sql="select count(*) as orders, sum(total_cents) as cents from orders where ordered_on >= :since",
    parameters={"since": "{{inputs.since}}"},
    fetch=1,
)
copy = sales.step(
    "copy_daily_sales",
    "sql_script",
    connection="warehouse",
    sql="""
        attach database :shop as shop;
        create table if not exists daily_sales (day text primary key, orders integer not null, cents integer not null);
        delete from daily_sales where day >= :since;
        insert into daily_sales
        select ordered_on, count(*), sum(total_cents) from shop.orders where ordered_on >= :since group by ordered_on;
    """,
    parameters={"since": "{{inputs.since}}", "shop": "{{env.TASKCENTER_HOME}}/sample/shop.db"},
    transaction="none",
    retries=2,
    retry_backoff_ms=500,
    timeout=900,
)
check = sales.step(
    "check_totals",
    "sql_script",
    connection="warehouse",
    sql="select sum(orders) - :orders as difference from daily_sales where day >= :since",
    parameters={"since": "{{inputs.since}}", "orders": "{{steps.snapshot_counts.rows[0].orders}}"},
    fetch=1,
    expect="value == 0",
)
alarm = sales.step(
    "alarm",
    "shell",
    command=["echo", 'nightly sales failed: {{steps.copy_daily_sales.error | default("the check")}}'],
    join="any_failed",
)

before >> copy >> check
[copy, check] >> alarm
