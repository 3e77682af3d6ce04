"""The tidy frame of results: its schema, files of it, and how rows are found in it."""
