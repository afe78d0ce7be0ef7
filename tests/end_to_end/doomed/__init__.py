"""A client that is there to be killed."""
