"""How a trained run leaves this machine."""
