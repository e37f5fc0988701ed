"""Fan-out: list the tables, count each of them, at most three at once, and add the counts up."""

from composites import Composite

counts = Composite(
    "table-counts",
    description="Lists the shop's tables, counts the rows of each in parallel, and adds them up.",
    tags=["fan-out", "demo"],
)

tables = counts.step(
    "tables",
    "sql_script",
    connection="sample",
    sql="select name from sqlite_master where type = 'table' and name not like 'sqlite_%' order by name",
    fetch=100,
)
count = counts.step(
    "count",
    "sql_script",
    connection="sample",
    sql="""select '{{item.name}}' as table_name, count(*) as row_count from "{{item.name}}" """,
    fetch=1,
).map(over="{{steps.tables.rows}}", parallel=3)
total = counts.step(
    "total",
    "python",
    code="result = {c['rows'][0]['table_name']: c['rows'][0]['row_count'] for c in counts}",
    kwargs={"counts": "{{steps.count.execution}}"},
)

tables >> count >> total
