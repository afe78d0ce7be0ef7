"""The command line of those who run the bot: `./murmur admin` and `./murmur quota`.

`command` reads the command line, `carrying` decides who carries a command out: the bot that runs, through
`calling` its control socket, or we on its store. `actions` has all that can be asked for, `files` what is
written to files; `wire` is what the socket carries.
"""
