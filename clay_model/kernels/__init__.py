"""Fast replacements for single parts of the encoders, one module a part; `accelerate` puts them in.

Each takes and gives what the part it replaces does, to rounding. What decides whether one is used belongs in
`accelerate`, not here.
"""
