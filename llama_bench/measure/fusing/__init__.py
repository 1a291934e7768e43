"""Parts of `fuse`: several models' weights, or outputs, as one model."""
