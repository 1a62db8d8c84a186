"""From speech to the conditions of every video frame: lips, face, head and eyes."""
