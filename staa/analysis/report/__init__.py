"""A trained run on one page."""
