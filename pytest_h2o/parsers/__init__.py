"""Text that the programs print -> rows and facts; pure apart from opening the file."""
