"""Pictures of what a trained ZETA does: its curve, its keys on a text, its recall, how far it looks."""
