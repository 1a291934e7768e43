"""How compute is split between size and tokens: by a law, or from the best run of each budget."""
