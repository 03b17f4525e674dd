"""The pages that ship, what explains a name in them, and what of them is made from the code."""
