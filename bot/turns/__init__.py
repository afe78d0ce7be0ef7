"""Answers from their place in the queue to the last message that shows them."""
