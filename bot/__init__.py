"""The bot: answers people in chat rooms; knows chats and quotas, never tensors.

__main__       the command line: bot, config, matrix, admin, quota, doctor
Uses swarm (one entry point: generate) and storage. Nothing uses bot but demo and bench.
"""
