"""A backup that is restored to prove it, beside a look at what changed in the structure; old backups go."""

from composites import Composite

nightly = Composite(
    "backup-and-check",
    description="Backs up the shop, verifies the backup by restoring it, and tells whether its structure changed.",
    tags=["backup", "demo"],
    max_parallel=2,
)

backup = nightly.step("backup", "backup", connection="sample", compress="gzip", verify=True, keepLast=7, keepDays=30)
structure = nightly.step("structure", "schema_snapshot", connection="sample", failOn="breaking", on_error="continue")
report = nightly.step(
    "report",
    "shell",
    command=[
        "echo",
        "{{steps.backup.tableCount}} tables, {{steps.backup.rowCount}} rows in {{steps.backup.filePath}}",
    ],
)

[backup, structure] >> report
