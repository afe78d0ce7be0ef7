"""A block server: hosts one span of a model's blocks and runs steps on it.

placement      which span to host                      block_loader   tensors -> blocks, quantized
sessions       the hop's side of the protocol          scheduler      which steps run next
executor       the one thread that owns the device     turns          what ran before tells what runs next
batch_cost     how long batches take                   serving        streams in, streams out
"""
