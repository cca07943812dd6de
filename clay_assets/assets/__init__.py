"""The assets, a module each; file, asset key and function share one name."""
