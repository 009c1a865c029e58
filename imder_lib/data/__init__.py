"""Data: files, the synthetic process and the missing protocols."""
