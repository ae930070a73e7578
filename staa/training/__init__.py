"""The loop: a step, an epoch, what is measured and what is saved."""
