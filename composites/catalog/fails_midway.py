"""Fails in the middle on purpose: see what is skipped, and why, and resume it.

taskcenter run fails-midway                                  # load fails, publish is skipped and says why
taskcenter run fails-midway --resume RUN --payload '{"table": "orders"}'   # only what did not succeed runs again
"""

from composites import Composite

midway = Composite(
    "fails-midway",
    description="The load step names a table that does not exist; what depends on it is skipped with its reason.",
    tags=["failure", "demo"],
    inputs={"table": "no_such_table"},
)

extract = midway.step(
    "extract", "sql_script", connection="sample", sql="select count(*) as orders from orders", fetch=1
)
load = midway.step(
    "load", "sql_script", connection="sample", sql='select count(*) as loaded from "{{inputs.table}}"', fetch=1
)
publish = midway.step("publish", "shell", command=["echo", "{{steps.load.rows[0].loaded}} rows were published"])
clean_up = midway.step("clean_up", "shell", command=["echo", "removing temporary files"], join="all_done")

extract >> load >> publish
[load, publish] >> clean_up
