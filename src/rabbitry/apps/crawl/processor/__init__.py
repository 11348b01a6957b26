"""The processor: takes pages, extracts title, text, language, links, keywords and fingerprint, publishes documents."""
