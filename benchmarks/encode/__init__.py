"""How fast images become codes, and whether the fast ways keep them."""
