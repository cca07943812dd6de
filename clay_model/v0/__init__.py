"""Clay v0: 13 bands in six groups, windows of 512 x 512 pixels, patches of 32 x 32.

`spec` says what the model is, in numbers and without PyTorch; `encodings` makes numbers of places and dates;
`encoder` is the network, top to bottom; `checkpoint` knows the names of its parameters in a file. What it
shares with the other model is one folder up.
"""
