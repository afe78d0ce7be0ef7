"""The swarm: shared words, the network, and the client that asks it for text.

wire/          what both ends agree on                 transport, dht   the two files that touch hivemind
session        the client's side of the protocol       routing, health  which servers to use, and which not
model_ends     embedding in, logits out                generate         prompt in, stream of text out
"""
