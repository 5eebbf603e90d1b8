"""What is promised about damaged, hostile and interrupted things, tried: `make reliability`."""
