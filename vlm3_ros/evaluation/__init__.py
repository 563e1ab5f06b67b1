"""How good the answers are: metrics, evaluations, pictures."""
