"""A local page: sit in either seat with pictures, and label recorded dialogues."""
