"""Long work that survives the server: operations in a database, and who carries them out."""
