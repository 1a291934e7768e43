"""What `train` is made of: the loop, its state, several devices."""
