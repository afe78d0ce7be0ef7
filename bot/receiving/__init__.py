"""What becomes of what people say: who may, whose conversation it is, what is kept of it."""
