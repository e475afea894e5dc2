"""Training: data cards, trainers, weights and their cards."""
