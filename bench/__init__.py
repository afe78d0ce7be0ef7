"""Measurements: one per file, baseline and candidate side by side in one run.

Not built yet: `python -m bench` says so. Planned: hop, decode, batch, push, failover, ...
May use every package; nothing uses it.
"""
