"""Host `whisper`: text from speech with Whisper base on CTranslate2; finds the language and skips silence."""
