"""How the policy is learned, stage by stage: `python -m models.train_policy` runs them in order."""
