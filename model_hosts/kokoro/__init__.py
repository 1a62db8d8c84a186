"""Host `kokoro`: speech from text with Kokoro-82M, in English and Mandarin, with exact phoneme times."""
