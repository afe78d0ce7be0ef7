"""The commands of the client half: `./murmur generate`, `./murmur status`. `./murmur dht` is bootstrap.py."""
