"""Fast replacements for parts of the encoders, equal up to rounding; `accelerate` chooses among them.

attention.py  attention on the CPU in bf16, one head at a time
packed.py     linear maps with weights packed once for oneDNN
patches.py    a patch embedding as one matrix product
"""
