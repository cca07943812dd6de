"""Fast replacements for parts of the encoders, equal up to rounding; `accelerate` chooses among them."""
