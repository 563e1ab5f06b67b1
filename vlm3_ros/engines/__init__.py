"""Who answers questions: one small protocol and its implementations."""
