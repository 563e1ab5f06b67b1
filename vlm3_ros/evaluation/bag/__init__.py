"""The evaluation of a bag."""
