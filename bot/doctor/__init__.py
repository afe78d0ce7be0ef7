"""`./murmur doctor`: looks for what is wrong with an installation, and says what to do; changes nothing.

It works beside a running bot: no lock is taken, nobody logs in anew, no second sync or gateway is begun.

command    the command line
checkup    which checks there are, and running them
machine    files, disk, clock, port
store      the store: can it be written, of which version is it, who uses it
swarm      the model's files, the peers, and who serves which blocks
Discord and Matrix are looked at by bot/on_discord/checkup.py and bot/on_matrix/checkup.py.
"""
