"""Conversations hold live sessions in the swarm: opened, put away, attached to again, forked, forgotten.

`holder` keeps one open session, `pool` decides which are open, `brain` is the model as the core sees it.
"""
