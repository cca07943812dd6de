"""Clay v1.5: ten optical bands, windows of 256 x 256 pixels, patches of 8 x 8, a class token.

`spec` says what the model is, in numbers and without PyTorch; `encodings` makes numbers of places and times;
`generator` makes the patch embedding of the bands' wavelengths, once for a checkpoint; `encoder` is the
network, top to bottom; `checkpoint` knows the names of its parameters in a file. What it shares with the
other model is one folder up.
"""
