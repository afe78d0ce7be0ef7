"""What both ends of a stream agree on: pure, versioned, bounded.

blocks.py    Span, Hop, peer and session ids        messages.py  every message, typed and constrained
frames.py    message + tensors <-> one frame        tensors.py   tensor <-> raw bytes
records.py   what a server announces in the DHT     tags.py      what a cache holds: (position, tag)
"""
