"""What everything stands on: errors, files, documents, progress."""
