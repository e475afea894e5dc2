"""What is learned, and how: data cards, trainers, weights and their cards."""
