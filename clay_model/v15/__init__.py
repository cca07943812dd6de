"""Clay v1.5: ten optical bands, windows of 256 x 256 pixels, patches of 8 x 8, a class token.

`spec` describes the model without PyTorch, `encodings` encodes places and times, `generator` computes the
patch embedding from the bands' wavelengths, once per checkpoint, `encoder` is the network, `checkpoint` has
the names of its parameters in a file. Parts shared with Clay v0 are one folder up.
"""
