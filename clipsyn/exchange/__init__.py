"""What other tools wrote, in and out; where the cells of a store come from."""
