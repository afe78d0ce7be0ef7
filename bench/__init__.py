"""Measurements: one per file, baseline and candidate side by side in one run.

`python -m bench` lists what there is. Planned: hop, decode, batch, push, failover, ...
May use every package; nothing uses it.
"""
