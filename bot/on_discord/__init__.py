"""The bot on Discord; the only folder that imports discord.

opening.py is where it begins: open_discord(). client.py hears events, events.py translates them,
hearing.py gives messages to the core, interactions.py commands and buttons; rights.py: where we may answer.
catching_up.py reads what was missed, places.py: how far we have read; trying.py: how long to wait.
port.py is the way out; history.py looks for what went out before; elsewhere.py: where we are no member;
threads.py opens threads for conversations; pacers.py: one for each channel; presence.py: how the swarm is.
receipts.py: commands and buttons that wait for their answer; telling.py: what one person is told.
tree.py makes slash commands of the catalogue, buttons.py what can be pressed below answers.
errors.py translates what goes wrong.
"""
