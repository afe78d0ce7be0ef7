"""Storage: what must survive a restart. Imports none of the other packages.

Not built yet. Planned: database (engine, pragmas, migrations), schema, quotas
(reserve, settle, remaining); one use case = one function = one transaction.
"""
