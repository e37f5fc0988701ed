"""Alembic's environment: runs the migrations on the connection that ``database.upgrade`` hands over.

The connection stands in a transaction already, and both databases undo changes of tables with it, so an upgrade
is all of it or nothing.
"""

from __future__ import annotations

from alembic import context

import taskcenter_adapter.schedule_tables
import taskcenter_adapter.snapshots  # noqa: F401  (their tables belong to the metadata)
from taskcenter_adapter.database import include_name
from taskcenter_adapter.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_name=include_name,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
