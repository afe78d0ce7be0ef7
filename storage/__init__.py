"""Storage: what must survive a restart, in one SQLite file. Imports none of the other packages.

`database` opens the file (lock, migrations, engines) and runs transactions; `schema` says what is in it.
Everything else is use cases: functions of a connection, each of which is one transaction when given to
`Database.write`.
"""
