"""Alembic's folder: one file per released schema."""
