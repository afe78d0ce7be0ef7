"""What an operator has set: a file, variables and secrets as one object, or a sentence for each mistake.

fields, platforms, models   what can be set, with defaults and bounds
layers                      what the file and the environment give, key by key
mistakes                    sentences about what is wrong with it
files, secrets              tokens and passwords, wherever they are kept
checks                      values that do not go together, and what is better set otherwise
loading                     all of it: load_config(); report shows what came out; command is ./murmur config
"""
