"""Watching over a bot that runs: what it logs, what it counts, whether it is well.

logs      log lines as text or JSON; no secrets, and nothing that people write
metrics   what is counted, and told to Prometheus
watched   what of a bot is looked at
readings  what is looked up when somebody asks: sessions, holds, how the platforms are
loop_lag  how late the event loop is
coverage  whether the swarm can answer
health    whether it is well, in sentences
pages     /metrics, /healthz and /readyz
systemd   tells systemd that it runs, that it is alive, and that it stops
watching  all of it around a bot
"""
