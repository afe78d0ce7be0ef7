"""The bot: answers people in chat rooms; knows chats and quotas, never tensors.

__main__       the command line: bot, config, quota, doctor (not built yet: says so)
Uses swarm (one entry point: generate) and storage. Nothing uses bot but demo and bench.
"""
