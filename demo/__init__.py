"""The demo: a private swarm and a room to talk to it, on one machine without a network.

model/         the bundled model: a few blocks, small enough for any laptop
May use every package; nothing uses it but bench.
"""
