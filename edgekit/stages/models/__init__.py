"""Source models: training reference models, importing a user's own, naming them."""
