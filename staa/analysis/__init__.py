"""What a network costs, what it reaches, and how that looks."""
