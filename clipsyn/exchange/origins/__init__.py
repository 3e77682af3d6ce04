"""Where the numbers of a store come from: who made them, of what, on whose terms, citing whom."""
