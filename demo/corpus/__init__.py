"""The texts that the demo model learns from, all written by this project.

areas/*.toml     intents: one canonical answer and many phrasings of its question each
follow_ups.toml  short questions that mean something only after an answer
grammar.toml     lists that phrasings refer to, synonyms, greetings around questions, system prompts
intents.py       reads them; grammar.py expands, variation.py roughens, conversations.py joins them
"""
