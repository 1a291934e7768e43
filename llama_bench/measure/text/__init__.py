"""From documents to token files: what `prepare` is made of."""
