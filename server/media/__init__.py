"""Sound and video: what comes in is decoded apart from the server, what goes out is finished here."""
