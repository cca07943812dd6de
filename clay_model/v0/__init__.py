"""Clay v0: 13 bands in six groups, windows of 512 x 512 pixels, patches of 32 x 32.

`spec` describes the model without PyTorch, `encodings` encodes places and dates, `encoder` is the network,
`checkpoint` has the names of its parameters in a file. Parts shared with Clay v1.5 are one folder up.
"""
