"""What the assets are given: object stores and the encoder."""
