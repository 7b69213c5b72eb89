"""`make gpu`: everything that needs a GPU, in one command for a machine that has one and no network."""
