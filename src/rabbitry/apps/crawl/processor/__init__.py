"""The processor: reads pages, and publishes documents with title, text, language, links, keywords and fingerprint."""
