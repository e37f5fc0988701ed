"""Weekly maintenance: two upkeep jobs, and a report that waits for exactly the steps it names."""

from composites import Composite

maintenance = Composite(
    "maintenance",
    description="Analyses and checks the shop in parallel, then reports when both named checks are well.",
    tags=["maintenance", "demo"],
    max_parallel=4,
)

analyse = maintenance.step("analyse", "sql_script", connection="sample", sql="analyze")
integrity = maintenance.step(
    "integrity", "sql_script", connection="sample", sql="pragma integrity_check", fetch=1, expect="value == 'ok'"
)
orphans = maintenance.step(
    "orphans",
    "sql_script",
    connection="sample",
    sql="select count(*) as orphans from orders where customer_id not in (select id from customers)",
    fetch=1,
    expect="value == 0",
    on_error="continue",
)
report = maintenance.step(
    "report",
    "shell",
    command=["echo", "the shop is sound; orphaned orders: {{steps.orphans.rows[0].orphans}}"],
    join="integrity.success and not orphans.failed",
)
tidy_up = maintenance.step("tidy_up", "shell", command=["echo", "done, whatever came before"], join="all_done")

[analyse, integrity, orphans] >> report >> tidy_up
