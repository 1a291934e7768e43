"""How far a fit can be believed: the back-test, the choice between laws, other ways to count."""
