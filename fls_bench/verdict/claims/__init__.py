"""The claims of the paper, each judged from stored runs alone."""
