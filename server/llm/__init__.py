"""Language models behind one protocol, asked in order."""
